"""The sections of a run's report that hold its captions against pictures, captioners and the truth."""

import html
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

_WORST = 6


def figure_sections(figures: Mapping[str, Any], agreement: pa.Table | None) -> str:
    """HTML of the sections there are figures for.

    Args:
        figures: As `captioner.figures.figures_of` gives them.
        agreement: captions/agreement.parquet, None where there is none.
    """
    parts = [_agreement(figures.get("agreement"), agreement), _captioners(figures["captioners"])]
    return "\n".join([*parts, _blank(figures.get("blank")), _truth(figures.get("truth"))])


def _agreement(summed: Mapping[str, Any] | None, table: pa.Table | None) -> str:
    if summed is None or table is None:
        return "<h2>Agreement with the pictures</h2><p>Not measured.</p>"
    lines = {
        "captions measured": f"{summed['captions']:,}",
        "similarity to their own picture": f"{summed['matched']:.3f}",
        "similarity to another picture": f"{summed['shuffled']:.3f}",
        "chance that the own one is nearer": f"{100 * summed['auc']:.1f} %",
        f"no nearer than {summed['shuffled_p95']:.3f}": f"{summed['unlike']:,}",
    }
    worst = table.sort_by([("clip_min", "ascending"), ("caption_id", "ascending")]).slice(0, _WORST)
    items = "".join(
        f"<li>{html.escape(row['worst_sentence'])} <small>({row['clip_min']:.3f}, picture {row['id']})</small></li>"
        for row in worst.to_pylist()
    )
    return (
        f"<h2>Agreement with the pictures</h2><p>By {html.escape(summed['clip_model'])}, sentence by sentence. "
        "Under the last limit lie 95 % of captions beside a picture that is not theirs.</p>"
        f"{_table(lines)}<h3>Sentences least like their picture</h3><ol>{items}</ol>"
    )


def _captioners(found: list[Mapping[str, Any]]) -> str:
    if not found:
        return ""
    head = "<tr><th>captioner<th>pictures of both<th>words in common<th>with another picture's"
    rows = [
        f"<tr><td>{html.escape(each['model'])}, prompt {html.escape(each['prompt_id'])}"
        f"<td class='n'>{each['pictures']:,}"
        + "".join(
            f"<td class='n'>{100 * each[name]:.1f} %" if name in each else "<td>"
            for name in ("words_in_common", "shuffled")
        )
        for each in found
    ]
    return f"<h2>Agreement with other captioners</h2><table>{head}{''.join(rows)}</table>"


def _blank(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return ""
    return (
        f"<h2>Of a blank picture it says</h2><p>{html.escape(found['caption'])}</p>"
        f"<p>{found['like_it']:,} captions say nearly the same.</p>"
    )


def _truth(shares: Mapping[str, float] | None) -> str:
    if shares is None:
        return ""
    lines = {name: f"{100 * share:.1f} %" for name, share in shares.items()}
    return f"<h2>Against what was drawn</h2>{_table(lines)}"


def _table(lines: Mapping[str, str]) -> str:
    cells = [
        f"<tr><th>{html.escape(name)}<td class='n'>{html.escape(value)}" for name, value in lines.items()
    ]
    return "<table>" + "".join(cells) + "</table>"
