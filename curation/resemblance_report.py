"""report.json and report.html of a release: does it resemble the concepts, and which of them stayed unfilled."""

import html
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from curation.candidates import Ints
from curation.card import DEMO_WARNING
from curation.charts import bars, curves
from curation.compared_sets import HALF, RANDOM, RELEASE, TOP_K, ComparedSets, compared_sets
from curation.resemblance import LEAST, nearest_of, nearest_similarities, resemblance
from curation.unfilled import unfilled_centroids
from curation.verdicts import Verdicts
from spine.run import Run
from spine.settings import Config

_ORDER = (RELEASE, TOP_K, RANDOM, HALF)
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

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1000px;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{border-top:1px solid #ddd;padding:.3em .7em;text-align:left;"
    "overflow-wrap:anywhere}td.n{text-align:right}svg{max-width:100%;height:auto}"
    ".warning{background:#fff3cd;padding:.8em}"
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
    warning = f'<p class="warning">{html.escape(DEMO_WARNING.replace("**", ""))}</p>' if demo_models else ""
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
            f"<title>{html.escape(title)}: does it resemble the concepts?</title><style>{_STYLE}</style></head>",
            f"<body><h1>{html.escape(title)}: does it resemble the concepts?</h1>{warning}",
            *_figures(content),
            *_unfilled(content["unfilled_centroids"]),
            "</body></html>\n",
        ]
    )


def _figures(content: Mapping[str, Any]) -> list[str]:
    sets = content["sets"]
    notes = [f"<p>{html.escape(name)}: {html.escape(why)}.</p>" for name, why in content["missing"].items()]
    if not sets:
        return ["<p>There are no figures.</p>", *notes]
    n = next(iter(sets.values()))["pictures"]
    groups = ("precision", "recall", "coverage")
    histogram = content["similarity_histogram"]
    rows = [
        f"<tr><th>{name}</th><td>{html.escape(meaning)}</td>"
        + "".join(f'<td class="n">{figures[name]:g}</td>' for figures in sets.values())
        + "</tr>"
        for name, meaning in MEANINGS.items()
    ]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in sets)
    return [
        f"<p>Measured on embeddings alone, {n:,} pictures of each set at random, against {n:,} concept pictures; "
        f"a picture's reach is its similarity to its {content['k']}-th nearest in its own set. All figures grow or "
        "fall with the number of pictures: compare them within this page only. The concepts' other half shows how "
        "near anything can come.</p>",
        bars("Within reach", groups, {name: [each[key] for key in groups] for name, each in sets.items()}),
        curves(
            "Similarity to the nearest concept picture",
            "similarity",
            histogram["edges"],
            histogram["shares"],
        ),
        f"<table><tr><th>figure</th><th>meaning</th>{head}</tr>{''.join(rows)}</table>",
        *notes,
    ]


def _unfilled(unfilled: list[dict[str, Any]]) -> list[str]:
    if not unfilled:
        return ["<h2>Unfilled centroids</h2><p>Every centroid has its quota.</p>"]
    rows = [
        f'<tr><td class="n">{each["centroid_id"]}</td><td>{html.escape(str(each["label"] or ""))}</td>'
        f'<td class="n">{each["selected"]:,} of {each["quota"]:,}</td><td>{html.escape(each["why"])}</td></tr>'
        for each in unfilled[:_SHOWN]
    ]
    more = f"; the first {_SHOWN} are shown, all are in report.json" if len(unfilled) > _SHOWN else ""
    return [
        f"<h2>Unfilled centroids</h2><p>{len(unfilled):,} have fewer pictures than their quota{more}.</p>",
        f"<table><tr><th>centroid</th><th>label</th><th>has</th><th>why</th></tr>{''.join(rows)}</table>",
    ]
