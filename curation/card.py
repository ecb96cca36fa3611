"""The dataset's card: what it is, how it came to be, with which models and settings, and what it lacks."""

import json
from dataclasses import asdict, dataclass
from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.columns import MEANINGS
from curation.funnel import FunnelStep
from spine.settings import Config

DEMO_WARNING = (
    "**Made with demo models.** The embeddings, scores or captions come from the small models that come "
    "with popfactory. They know only the simple drawn scenes they were trained on: nothing they say of "
    "other pictures means anything."
)
"""Stands at the head of every card and page of a run on demo models."""

_GAPS = (
    "Captions are a model's: they may name what is not there. They were not all read by people.",
    "Scores are models' guesses. A picture without a score passed the filters that need it "
    'unless [filters] unknown is "drop".',
    "Addresses die and what they show changes; sha256 tells whether a picture is still the one described.",
    "Near-duplicates were looked for among the fetched pictures by their embeddings; crops and mirrored "
    "copies may remain.",
    "Opt-outs were heeded as the hosts stated them when the pictures were fetched (opt_out); what was reserved "
    "since is not known.",
)
_WITHOUT_PIXELS = (
    "The release holds metadata and places of pictures, not the pictures; their rights are their owners'. image_path "
    "names places of the machine that made it."
)
_WITH_PIXELS = "The pictures in `webdataset/` are as they were found; their rights are their owners'."
_SIZES = (
    (1_000, "n<1K"),
    (10_000, "1K<n<10K"),
    (100_000, "10K<n<100K"),
    (1_000_000, "100K<n<1M"),
    (10_000_000, "1M<n<10M"),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class CardFacts:
    """What a card tells."""

    name: str
    version: str
    config: Config
    steps: list[FunnelStep]
    demo_models: bool
    models: dict[str, str]
    prompt_text: str
    """What the captioner was asked."""
    lists_digest: str
    manifests: dict[str, str]
    """Digest of each stage's manifest."""
    selection_facts: dict[str, Any]

    @property
    def title(self) -> str:
        """Name and version."""
        return f"{self.name} {self.version}"

    @property
    def description(self) -> str:
        """One sentence."""
        rows = self.steps[-1].count
        text = (
            f"{rows:,} pictures with captions, the neighbours of "
            f"{self.selection_facts.get('centroids', 0):,} concepts, selected and described by popfactory."
        )
        return f"{text} Made with demo models." if self.demo_models else text


def card_text(table: pa.Table, facts: CardFacts) -> str:
    """The card as Markdown under YAML front matter.

    Nothing that pictures or pools say is quoted in it: counts, settings and names only.

    Args:
        table: The dataset.
        facts: What to tell.
    """
    rights = _WITH_PIXELS if facts.config.release.pixels else _WITHOUT_PIXELS
    parts = [
        _front_matter(table, facts),
        f"# {facts.title}",
        *([DEMO_WARNING] if facts.demo_models else []),
        facts.description,
        "`dataset.parquet` has one row a picture: LAION-POP's twelve columns, then those that explain the row. "
        "`samples.html` shows some of them, `report.html` tells how far they resemble the concepts and which of these "
        "stayed unfilled, `manifest.json` has the digest of every file.",
        '```python\nfrom datasets import load_dataset\n\nrows = load_dataset("FOLDER", split="train")\n```',
        "## How it came to be",
        _funnel_table(facts.steps),
        _shortfall(facts.selection_facts),
        "## What is in it",
        _values_table(table),
        _people(table),
        "## Columns",
        _pairs_table("column", "meaning", {f"`{name}`": meaning for name, meaning in MEANINGS.items()}),
        "## Models",
        _pairs_table("what", "model", facts.models),
        _prompt(facts),
        "## Settings",
        "```json\n"
        + json.dumps(shown_settings(facts.config), indent=2, sort_keys=True, ensure_ascii=False)
        + "\n```",
        "## Lists and provenance",
        f"Takedown and hash lists in force, SHA-256 over all their entries: `{facts.lists_digest}`.",
        _pairs_table(
            "stage", "SHA-256 of its manifest", {key: f"`{value}`" for key, value in facts.manifests.items()}
        ),
        "## Known gaps",
        "\n".join(f"- {gap}" for gap in (*_GAPS, rights)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(table: pa.Table, facts: CardFacts) -> str:
    """As dataset hubs read it. JSON strings are YAML strings."""
    size = next((name for limit, name in _SIZES if table.num_rows < limit), "n>10M")
    lines = [
        "---",
        f"pretty_name: {json.dumps(facts.title, ensure_ascii=False)}",
        "license: other",
        f"license_name: {json.dumps(facts.config.release.licence, ensure_ascii=False)}",
        "task_categories:",
        "- text-to-image",
        "- image-to-text",
        "tags:",
        "- image-captioning",
        "- popfactory",
        *(["- demo-models"] if facts.demo_models else []),
        "size_categories:",
        f"- {json.dumps(size)}",
        "configs:",
        "- config_name: default",
        "  data_files:",
        "  - split: train",
        "    path: dataset.parquet",
        "---",
    ]
    return "\n".join(lines)


def _funnel_table(steps: list[FunnelStep]) -> str:
    lines = ["| step | count | lost on the way |", "|---|---:|---|"]
    for step in steps:
        lost = ", ".join(f"{reason} {count:,}" for reason, count in step.losses.items())
        lines.append(f"| {step.label} | {step.count:,} | {lost} |")
    return "\n".join(lines)


def _shortfall(selection_facts: dict[str, Any]) -> str:
    short = selection_facts.get("centroids_short", 0)
    if not short:
        return "Every centroid has its quota."
    return (
        f"{short:,} of {selection_facts['centroids']:,} centroids are short of their quota of "
        f"{selection_facts['quota_per_centroid']:,}, by {selection_facts['missing']:,} pictures in all."
    )


_QUANTILES = {"least": 0.0, "5 %": 0.05, "25 %": 0.25, "median": 0.5, "75 %": 0.75, "95 %": 0.95, "most": 1.0}
_MEASURED = ("width", "height", "similarity", "aesthetic", "pwatermark", "punsafe", "violence")


def _values_table(table: pa.Table) -> str:
    """How the values are spread: so many rows lie below each."""
    lines = [f"| | {' | '.join(_QUANTILES)} | unknown |", f"|---|{'---:|' * (len(_QUANTILES) + 1)}"]
    texts = table.column("caption").to_pylist()
    words = pa.chunked_array([[len(text.split()) for text in texts]], pa.int64())
    for name, column in [*((name, table.column(name)) for name in _MEASURED), ("words in caption", words)]:
        values = np.asarray(column.drop_null().to_numpy(), dtype=np.float64)
        figures = ["–"] * len(_QUANTILES)
        if len(values):
            figures = [f"{value:.4g}" for value in np.quantile(values, list(_QUANTILES.values()))]
        lines.append(f"| {name} | {' | '.join(figures)} | {column.null_count:,} |")
    return "\n".join(lines)


def _people(table: pa.Table) -> str:
    """What people had a hand in, and what the captioner didn't end."""
    rows = table.num_rows
    kept, written = (rows - table.column(name).null_count for name in ("selected_by", "caption_edited_by"))
    cut = pc.sum(pc.equal(table.column("finish_reason"), "length")).as_py() or 0
    return (
        f"Of {rows:,} pictures curators kept {kept:,} by their own decision; of the captions they wrote {written:,}. "
        f"{cut:,} captions were cut off at the greatest length."
    )


def _pairs_table(first: str, second: str, pairs: dict[str, str]) -> str:
    rows = [f"| {key} | {value} |" for key, value in pairs.items()]
    return "\n".join([f"| {first} | {second} |", "|---|---|", *rows])


def _prompt(facts: CardFacts) -> str:
    said = " ".join(facts.prompt_text.split())
    return f"The captioner was asked:\n\n> {said}"


def shown_settings(config: Config) -> dict[str, Any]:
    """The settings that shape the result, as JSON values, without places on this machine."""
    settings: dict[str, Any] = json.loads(json.dumps(asdict(config)))
    for table, key in (("concepts", "source"), ("pool", "source"), ("pool", "index"), ("pool", "server")):
        settings[table].pop(key)
    settings["lists"] = {key: len(value) for key, value in settings["lists"].items()}
    settings["pool"]["side_tables"] = len(settings["pool"]["side_tables"])
    for key, value in settings["score"].items():
        settings["score"][key] = PurePath(value).name if isinstance(value, str) else value
    settings["caption"].pop("endpoints")
    return settings
