"""What the Release page shows of a run: what would be released, what was, and how they differ."""

import json
import random
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.decisions import read_verdicts
from curation.funnel import funnel
from curation.release import outdated
from curation.release_diff import blocked_rows, difference
from curation.resemblance_report import MEANINGS
from curation.revisions import published, revisions
from spine.errors import DataError
from spine.jobs import answer_of
from spine.manifest import find_manifest
from spine.table_files import read_table
from spine.tables import DATASET
from ui.board import funnel_rows
from ui.desk import Desk
from ui.pictures import pictures_of
from ui.settings_form import settings_digest

NEEDED = ("centroids", "neighbours", "images", "scores", "selection", "captions")
"""Stages without which nothing can be released."""

_CHANGES_SHOWN = 200
_DRAFT_S = 600.0
_SAMPLES = 24
_SAMPLE = (
    "id",
    "caption",
    "caption_edited_by",
    "centroid_id",
    "centroid_label",
    "width",
    "height",
    "aesthetic",
    "selected_by",
)


class ReleaseDesk:
    """The releases of one run as their page sees them. Used from several threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._draft: tuple[tuple[object, ...], dict[str, Any]] | None = None

    def about(self) -> dict[str, Any]:
        """What would be released, and what keeps it from being the whole and the newest.

        Raises:
            ConfigError, DataError: The settings, a manifest or a list can't be read.
        """
        run, config = self._desk.run, self._desk.snapshot.config()
        manifests = {name: find_manifest(run.folder / name) for name in NEEDED}
        missing = [name for name, manifest in manifests.items() if manifest is None]
        there = {name: manifest for name, manifest in manifests.items() if manifest is not None}
        earlier = revisions(run, config.release.name, config.release.version)
        return {
            "seen": settings_digest(run),
            "settings": {
                name: getattr(config.release, name)
                for name in ("name", "version", "licence", "pixels", "aspect_buckets")
            },
            "missing": missing,
            "stale": [] if missing else outdated(there, read_verdicts(run)),
            "first": not earlier,
            "newest": earlier[-1].folder.name if earlier else None,
            "next": f"{config.release.name}-{config.release.version}"
            + (f"+{earlier[-1].number + 1}" if earlier else ""),
            "funnel": funnel_rows(funnel(run)),
            "releases": self.releases(),
        }

    def releases(self) -> list[dict[str, Any]]:
        """What was published, newest first."""
        found = []
        for folder in published(self._desk.run):
            manifest = find_manifest(folder)
            if manifest is None:
                continue
            found.append(
                {
                    "name": folder.name,
                    "created": manifest.created,
                    "rows": manifest.counts.get("released", 0),
                    "left_out": {
                        name.removeprefix("left_out_"): count
                        for name, count in manifest.counts.items()
                        if name.startswith("left_out_")
                    },
                    "licence": manifest.parameters.get("licence"),
                    "demo": bool(manifest.facts.get("demo_models")),
                    "models": manifest.facts.get("models", {}),
                    "size_bytes": sum(record.size_bytes for record in manifest.files),
                    "files": [
                        {"path": record.path, "size_bytes": record.size_bytes} for record in manifest.files
                    ],
                }
            )
        return sorted(found, key=lambda each: (each["created"], each["name"]), reverse=True)

    def draft(self) -> dict[str, Any]:
        """What would be published as things stand: its rows' count, some rows, the card, and what differs.

        A process of its own assembles it, as a large dataset takes memory that this one should not keep.

        Raises:
            DataError: A stage isn't finished, or there is nothing to release.
        """
        desk = self._desk
        state = (desk.state(), desk.decisions.last_event(), *(each.name for each in published(desk.run)))
        with self._lock:
            if self._draft is None or self._draft[0] != state:
                arguments = ["release", str(desk.run.folder), "--dry-run", "--json"]
                self._draft = (state, json.loads(answer_of(arguments, timeout_s=_DRAFT_S)))
            found = self._draft[1]
        differs = found["difference"]
        return found | {
            "rows": self._with_pictures(found["rows"]),
            "difference": differs and differs | {"changes": self._changes(differs["changes"])},
        }

    def samples(self, name: str, seed: int) -> dict[str, Any]:
        """Some rows of a release at random, the same for the same seed, with what can be shown of their pictures.

        Raises:
            DataError: There is no such release, or it is damaged.
        """
        folder = self._folder(name)
        schema = pa.schema([DATASET.field(column) for column in _SAMPLE])
        table = read_table(folder / "dataset.parquet", schema)
        chosen = sorted(random.Random(seed).sample(range(table.num_rows), min(_SAMPLES, table.num_rows)))
        rows = table.take(pa.array(chosen, pa.int64())).to_pylist()
        return {"name": name, "rows": table.num_rows, "samples": self._with_pictures(rows)}

    def _with_pictures(self, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """Rows of a dataset for a page; nothing of what a list names by now."""
        pictures = pictures_of(self._desk, [row["id"] for row in rows])
        told = []
        for row in rows:
            picture = pictures[row["id"]]
            text = {"caption": None} if picture["state"] == "blocked" else {}
            told.append(
                row
                | text
                | {"id": str(row["id"]), "centroid_id": str(row["centroid_id"]), "picture": picture}
            )
        return told

    def _changes(self, changes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        pictures = pictures_of(self._desk, [change["id"] for change in changes])
        return [change | {"id": str(change["id"]), "picture": pictures[change["id"]]} for change in changes]

    def resemblance(self, name: str) -> dict[str, Any]:
        """How a release resembles the concepts, beside other sets, as it was measured when it was published.

        Returns:
            sets: By name the figures; meanings: of each figure; missing: why a set has none. No sets where the
            release was published before any were measured.

        Raises:
            DataError: There is no such release.
        """
        path = self._folder(name) / "report.json"
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        return {
            "name": name,
            "sets": content.get("sets", {}),
            "missing": content.get("missing", {}),
            "meanings": MEANINGS,
        }

    def difference(self, old: str, new: str) -> dict[str, Any]:
        """What differs between two releases: the sums, and some rows with the reason.

        Raises:
            DataError: One isn't there, or is damaged.
        """
        found = difference(self._desk.run, self._folder(old).name, self._folder(new).name)
        kinds = Counter(change.kind for change in found.changes)
        return {
            "old": found.old,
            "new": found.new,
            "same": found.same,
            **{kind: kinds[kind] for kind in ("removed", "added", "changed")},
            "changes": self._changes([asdict(change) for change in found.changes[:_CHANGES_SHOWN]]),
        }

    def blocked(self) -> dict[str, Any]:
        """Rows of all releases that a list names by now.

        Raises:
            ConfigError: A list can't be read.
        """
        rows = blocked_rows(self._desk.run, self._desk.snapshot.lists())
        return {
            "releases": dict(Counter(row.release for row in rows)),
            "rows": [
                {"release": row.release, "id": str(row.id), "rule": row.rule} for row in rows[:_CHANGES_SHOWN]
            ],
        }

    def file(self, name: str, path: str) -> Path:
        """A published file of a release.

        Raises:
            DataError: There is no such release, or no such file was published with it.
        """
        folder = self._folder(name)
        manifest = find_manifest(folder)
        if manifest is None or path not in {record.path for record in manifest.files} | {"manifest.json"}:
            raise DataError(f"{name}: no file {path[:80]} was published with it")
        return folder / path

    def _folder(self, name: str) -> Path:
        """A release by its own name; not by a path, which `release_folder` takes too."""
        found = next((folder for folder in published(self._desk.run) if folder.name == name), None)
        if found is None:
            raise DataError(f"release {name[:80]} is not there any more; reload the page")
        return found
