"""captions/report.html: what a run's captions are like, on one page that loads nothing from elsewhere.

Made of the rows alone, so that the same captions give the same page.
"""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from captioner.report_figures import figure_sections
from spine.caption_flags import FLAGS
from spine.html_page import framed_page
from spine.publish import publish_text
from spine.run import Run
from spine.table_files import read_table
from spine.tables import AGREEMENT

BARS = 20
SAMPLES = 12

_WIDTH_PX, _HEIGHT_PX, _GAP_PX = 420, 120, 2
_HISTOGRAMS = {
    "words": "words",
    "tokens": "tokens",
    "repetition": "repeated 4-grams, share",
    "speculation": "speculating words",
    "interpretation": "interpreting words",
}
_STYLE = """
table { border-collapse: collapse; max-width: 100%; } td.n { text-align: right; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .15rem 1.2rem .15rem 0; vertical-align: top; }
figure { display: inline-block; margin: 1rem 1rem 0 0; max-width: 100%; } figcaption, small { color: var(--quiet); }
svg { background: var(--chart); display: block; max-width: 100%; height: auto; } rect { fill: var(--bar); }
li { white-space: pre-wrap; margin-bottom: .8rem; overflow-wrap: anywhere; }
@media (max-width: 560px) { td, th { padding-right: .6rem; } }
"""


def publish_report(run: Run, rows: pa.Table, counts: Mapping[str, int], facts: Mapping[str, Any]) -> None:
    """Publish the page of these captions.

    Args:
        run: Whose they are.
        rows: By rising id, one a selected picture; the columns of captioner.tally.COUNTED.
        counts: As in the manifest.
        facts: As in the manifest.
    """
    captioned = rows.filter(pc.equal(rows["status"], "captioned"))
    measured = run.caption_agreement.is_file()
    agreement = read_table(run.caption_agreement, AGREEMENT) if measured else None
    title = f"Captions by {facts['model']}"
    parts = [
        f"<p>Prompt {html.escape(str(facts['prompt_id']))}, captioner {html.escape(str(facts['captioner']))}.</p>",
        _outcomes(counts),
        _shares(counts),
        *(_histogram(name, captioned, label) for name, label in _HISTOGRAMS.items()),
        figure_sections(facts["figures"], agreement),
        _samples(captioned),
    ]
    warning = "By a small model that knows drawn scenes alone." if facts["demo_models"] else ""
    publish_text(run.captions_report, framed_page(title, title, _STYLE, parts, warning=warning))


def _outcomes(counts: Mapping[str, int]) -> str:
    names = ["selected", "captioned", "failed", *(name for name in counts if name.startswith("failed_"))]
    cells = [f"<tr><th>{html.escape(name.replace('_', ' '))}<td class='n'>{counts[name]:,}" for name in names]
    return "<h2>Pictures</h2><table>" + "".join(cells) + "</table>"


def _shares(counts: Mapping[str, int]) -> str:
    whole = max(counts["captioned"], 1)
    cells = [
        f"<tr><th>{name.replace('_', ' ')}<td class='n'>{counts[name]:,}"
        f"<td class='n'>{100 * counts[name] / whole:.1f} %<td>{html.escape(meaning)}"
        for name, meaning in FLAGS.items()
    ]
    return "<h2>Captions that need a look</h2><table>" + "".join(cells) + "</table><h2>Measures</h2>"


def _histogram(name: str, rows: pa.Table, label: str) -> str:
    values = sorted(float(value) for value in rows[name].to_pylist() if value is not None)
    if not values:
        return ""
    low, high = values[0], values[-1]
    step = (high - low) / BARS or 1.0
    heights = [0] * BARS
    for value in values:
        heights[min(int((value - low) / step), BARS - 1)] += 1
    width = _WIDTH_PX / BARS
    bars = "".join(
        f"<rect x='{place * width:.1f}' y='{_HEIGHT_PX * (1 - n / max(heights)):.1f}' "
        f"width='{width - _GAP_PX:.1f}' height='{_HEIGHT_PX * n / max(heights):.1f}'>"
        f"<title>from {low + place * step:.3g}: {n:,}</title></rect>"
        for place, n in enumerate(heights)
        if n
    )
    said = ", ".join(f"p{share} {_percentile(values, share):.3g}" for share in (5, 50, 95))
    return (
        f"<figure><svg width='{_WIDTH_PX}' viewBox='0 0 {_WIDTH_PX} {_HEIGHT_PX}' "
        f"role='img' aria-label='{html.escape(label)}'>{bars}"
        f"</svg><figcaption>{html.escape(label)}: {low:.3g} to {high:.3g}; {said}</figcaption></figure>"
    )


def _percentile(values: Sequence[float], share: int) -> float:
    """Of rising values the smallest with at least `share` % of them at or below it."""
    return values[max(math.ceil(len(values) * share / 100), 1) - 1]


def _samples(rows: pa.Table) -> str:
    """Captions from all over the run, and the worst by repetition."""
    spread = rows["caption"].to_pylist()[:: max(rows.num_rows // SAMPLES, 1)][:SAMPLES]
    worst = (
        rows.sort_by([("repetition", "descending"), ("id", "ascending")])["caption"].slice(0, 3).to_pylist()
    )

    def listed(captions: Sequence[str]) -> str:
        return "<ol>" + "".join(f"<li>{html.escape(caption)}</li>" for caption in captions) + "</ol>"

    return f"<h2>Some of them</h2>{listed(spread)}<h2>The most repetitive</h2>{listed(worst)}"
