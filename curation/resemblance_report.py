"""report.json and report.html of a release: does it resemble the concepts, and which of them stayed unfilled."""

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curation.candidates import Ints
from curation.charts import bars, curves
from curation.compared_sets import HALF, RANDOM, RELEASE, TOP_K, ComparedSets, compared_sets
from curation.page import html_page
from curation.resemblance import LEAST, nearest_of, nearest_similarities, resemblance
from curation.unfilled import unfilled_centroids
from curation.verdicts import Verdicts
from spine.run import Run
from spine.settings import Config

_ORDER = (RELEASE, TOP_K, RANDOM, HALF)
_THE = {RANDOM: "a random sample of the pool", TOP_K: "plain top-k without filters"}
_BINS = 40
_SHOWN = 200  # unfilled centroids on the page; all are in report.json
_DIGITS = 4
MEANINGS = {
    "precision": "of its pictures, those within the reach of a concept picture",
    "recall": "of the concept pictures, those within the reach of one of its pictures",
    "coverage": "of the concept pictures, those that have one of its pictures within their own reach",
    "frechet": "Fréchet distance of the embeddings to the concepts': lower is nearer",
    "similarity": "mean similarity of a picture to its nearest concept picture",
    "diversity": "one minus the mean similarity of two of its pictures",
    "vendi": "Vendi score: as many pictures, all unlike, would spread as much",
}
"""Every figure of a set with what it means."""

_NAMES = {"frechet": "Fréchet distance", "vendi": "Vendi score"}
_NEARER = {"precision": 1, "coverage": 1, "frechet": -1, "similarity": 1}
"""The figures that say how near a set is, with the side on which nearer lies. Recall isn't one: a set that is strewn
anywhere has a wide reach, and recalls everything."""

_STYLE = (
    ".wide{overflow-x:auto}table{border-collapse:collapse;margin:1em 0}"
    "td,th{border-top:1px solid var(--line);padding:.3em .7em;text-align:left;min-width:4em}"
    "td.n{text-align:right;white-space:nowrap}td.why,td.label{overflow-wrap:anywhere;min-width:12em}"
    "svg{max-width:100%;height:auto;border-radius:4px}"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What is published."""

    content: dict[str, Any]
    """report.json."""
    page: str
    """report.html."""


def resemblance_report(
    run: Run, released: Ints, config: Config, verdicts: Verdicts, *, title: str, demo_models: bool
) -> Report:
    """Measure a release beside a random sample of the pool, plain top-k, and the concepts themselves.

    Same inputs, same report. Figures are rounded, so that another BLAS gives the same ones.

    Args:
        run: With a finished selection.
        released: Ids of the release, shape (n,).
        config: Its settings.
        verdicts: What curators decided.
        title: Name and version.
        demo_models: Whether to warn of them.
    """
    found = compared_sets(run, released, config, verdicts)
    figures, similarities, missing = _measured(found)
    unfilled = [asdict(each) | {"why": each.why} for each in unfilled_centroids(run, config, verdicts)]
    content = {
        "k": nearest_of(next(iter(figures.values()))["pictures"]) if figures else None,
        "sets": figures,
        "nearer": _nearer(figures),
        "missing": missing,
        "similarity_histogram": similarities,
        "unfilled_centroids": unfilled,
    }
    return Report(content, _page(content, title, demo_models))


def _measured(found: ComparedSets | None) -> tuple[dict[str, Any], dict[str, Any], dict[str, str]]:
    """Figures and histograms by set, and why others have none."""
    if found is None:
        return {}, {}, dict.fromkeys(_ORDER, "the concepts' embeddings aren't stored in this run")
    missing = dict(found.missing)
    sets = {name: found.sets[name] for name in _ORDER if name in found.sets}
    for name in [name for name, vectors in sets.items() if len(vectors) < LEAST]:
        missing[name] = f"{len(sets.pop(name)):,} pictures; {LEAST} were needed for figures"
    n = min([len(found.concepts), *map(len, sets.values())], default=0)
    if n < LEAST:
        missing |= dict.fromkeys(
            sets, f"half of the concepts is {len(found.concepts):,}; {LEAST} were needed"
        )
        return {}, {}, missing
    chance = np.random.default_rng(1)
    concepts = found.concepts[:n]
    same = {name: vectors[chance.permutation(len(vectors))[:n]] for name, vectors in sets.items()}
    figures = {
        name: {
            key: round(value, _DIGITS)
            for key, value in asdict(resemblance(vectors, concepts, nearest_of(n))).items()
        }
        for name, vectors in same.items()
    }
    nearest = {name: nearest_similarities(vectors, concepts) for name, vectors in same.items()}
    low = min(float(values.min()) for values in nearest.values())
    edges = np.linspace(np.floor(low * 20) / 20, 1.0, _BINS + 1)
    counts = {name: np.histogram(np.clip(values, low, 1), edges)[0] / n for name, values in nearest.items()}
    shares = {name: [round(float(share), _DIGITS) for share in each] for name, each in counts.items()}
    return figures, {"edges": [round(float(edge), _DIGITS) for edge in edges], "shares": shares}, missing


def _page(content: Mapping[str, Any], title: str, demo_models: bool) -> str:
    heading = f"{title}: does it resemble the concepts?"
    parts = [*_figures(content), *_unfilled(content["unfilled_centroids"])]
    return html_page(heading, heading, _STYLE, parts, demo_models=demo_models)


def _nearer(sets: Mapping[str, Mapping[str, float]]) -> list[str]:
    """In which figures the release is nearer to the concepts than a random sample and than plain top-k, in words."""
    lines = []
    for other in (RANDOM, TOP_K):
        if RELEASE not in sets or other not in sets:
            continue
        by = {name: side * (sets[RELEASE][name] - sets[other][name]) for name, side in _NEARER.items()}
        nearer, farther = (
            ", ".join(_NAMES.get(name, name) for name, value in by.items() if sign * value > 0) or "nothing"
            for sign in (1, -1)
        )
        lines.append(
            f"The release is nearer to the concepts than {_THE[other]} in {nearer}; farther in {farther}."
        )
    return lines


def _figures(content: Mapping[str, Any]) -> list[str]:
    sets = content["sets"]
    notes = [f"<p>{html.escape(name)}: {html.escape(why)}.</p>" for name, why in content["missing"].items()]
    if not sets:
        return ["<p>There are no figures.</p>", *notes]
    n = next(iter(sets.values()))["pictures"]
    groups = ("precision", "recall", "coverage")
    histogram = content["similarity_histogram"]
    rows = [
        f"<tr><th>{_NAMES.get(name, name)}</th><td>{html.escape(meaning)}</td>"
        + "".join(f'<td class="n">{figures[name]:g}</td>' for figures in sets.values())
        + "</tr>"
        for name, meaning in MEANINGS.items()
    ]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in sets)
    return [
        f"<p>Measured on embeddings alone, {n:,} pictures of each set at random, against {n:,} concept pictures; "
        f"a picture's reach is its similarity to its k-th nearest in its own set, k = {content['k']}. All figures "
        "grow or fall with the number of pictures: compare them within this page only. The concepts' other half shows "
        "how near anything can come.</p>",
        *(f"<p>{html.escape(line)}</p>" for line in content["nearer"]),
        bars("Within reach", groups, {name: [each[key] for key in groups] for name, each in sets.items()}),
        curves(
            "Similarity to the nearest concept picture",
            "similarity",
            histogram["edges"],
            histogram["shares"],
        ),
        f'<div class="wide" tabindex="0"><table><tr><th>figure</th><th>meaning</th>{head}</tr>',
        f"{''.join(rows)}</table></div>",
        *notes,
    ]


def _unfilled(unfilled: list[dict[str, Any]]) -> list[str]:
    if not unfilled:
        return ["<h2>Unfilled centroids</h2><p>Every centroid has its quota.</p>"]
    rows = [
        f'<tr><td class="n">{each["centroid_id"]}</td><td class="label">{html.escape(str(each["label"] or ""))}</td>'
        f'<td class="n">{each["selected"]:,} of {each["quota"]:,}</td>'
        f'<td class="why">{html.escape(each["why"])}</td></tr>'
        for each in unfilled[:_SHOWN]
    ]
    more = f"; the first {_SHOWN} are shown, all are in report.json" if len(unfilled) > _SHOWN else ""
    return [
        f"<h2>Unfilled centroids</h2><p>{len(unfilled):,} have fewer pictures than their quota{more}.</p>",
        '<div class="wide" tabindex="0"><table><tr><th>centroid</th><th>label</th><th>has</th><th>why</th></tr>'
        f"{''.join(rows)}</table></div>",
    ]
