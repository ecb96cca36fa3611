"""What the Release page shows of a run: what would be released, what was, and how they differ."""

import json
import random
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.decisions import read_verdicts
from curation.funnel import funnel
from curation.release import outdated
from curation.release_diff import blocked_rows, difference
from curation.resemblance_report import MEANINGS
from curation.revisions import published, revisions
from curation.unfilled import unfilled_centroids
from spine.errors import DataError
from spine.settings import Config
from spine.stage import find_manifest
from spine.tables import DATASET, read_table
from ui.board import funnel_rows
from ui.desk import Desk
from ui.figures import distribution, yields
from ui.pictures import pictures_of
from ui.settings_form import settings_digest

NEEDED = ("centroids", "neighbours", "images", "scores", "selection", "captions")
"""Stages without which nothing can be released."""

_CHANGES_SHOWN = 200
_GROUPS_SHOWN = 12
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
        self._figures: tuple[list[Any], dict[str, Any]] | None = None

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
                name: getattr(config.release, name) for name in ("name", "version", "licence", "pixels")
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

    def figures(self) -> dict[str, Any]:
        """Yield, distributions, near-duplicates and agreement of the selection as it stands.

        Raises:
            ConfigError, DataError: The settings or a table can't be read.
        """
        run, decisions = self._desk.run, self._desk.decisions
        states = [settings_digest(run), decisions.last_event()]
        states += [found and found.digest for found in map(self._desk.snapshot.manifest, self._read())]
        with self._lock:
            if self._figures is None or self._figures[0] != states:
                self._figures = (states, self._counted())
            return self._figures[1]

    def _read(self) -> list[Path]:
        return [self._desk.run.folder / name for name in NEEDED]

    def _counted(self) -> dict[str, Any]:
        snapshot, config = self._desk.snapshot, self._desk.snapshot.config()
        table = snapshot.selection()
        chosen = table.filter(pc.equal(table["verdict"], "selected"))
        ids = np.unique(np.asarray(chosen["id"].to_numpy(), dtype=np.int64))
        images, scores = snapshot.images().rows(ids), snapshot.scores().rows(ids)
        sides = pc.min_element_wise(images["width"], images["height"], skip_nulls=False)
        best = np.asarray(chosen["similarity"].to_numpy(), dtype=np.float64)
        least_px, least_aesthetic = config.filters.min_side_px or None, config.filters.aesthetic_min.value
        return {
            "selected": len(ids),
            "yield": self._yield(table, config),
            "distributions": [
                _named("Shorter side, px", distribution(_floats(sides), whole=True), least_px),
                _named("Aesthetic score", distribution(_floats(scores["aesthetic"])), least_aesthetic),
                _named("Similarity to the centroid", distribution(best), None),
                _named("Words of a caption", distribution(self._words(ids), whole=True), None),
            ],
            "duplicates": self._duplicates(table),
            "differently": len(self._desk.decisions.judgements(list(read_verdicts(self._desk.run).images))),
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
        return {"name": name, "rows": table.num_rows, "samples": told}

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
        shown = found.changes[:_CHANGES_SHOWN]
        pictures = pictures_of(self._desk, [change.id for change in shown])
        return {
            "old": found.old,
            "new": found.new,
            "same": found.same,
            **{kind: kinds[kind] for kind in ("removed", "added", "changed")},
            "changes": [
                {
                    "kind": change.kind,
                    "id": str(change.id),
                    "reason": change.reason,
                    "picture": pictures[change.id],
                }
                for change in shown
            ],
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

    def _yield(self, table: pa.Table, config: Config) -> dict[str, Any] | None:
        k = self._desk.snapshot.centroids().num_rows
        if not k or not table.num_rows:
            return None
        verdicts = read_verdicts(self._desk.run)
        chosen = table.filter(pc.equal(table["verdict"], "selected"))["centroid_id"]
        return yields(
            np.bincount(np.asarray(chosen.to_numpy(), dtype=np.int64), minlength=k)[:k],
            verdicts.quotas(k, config.select.quota_per_centroid),
            verdicts.centroids_left_out(),
            unfilled_centroids(self._desk.run, config, verdicts),
        )

    def _words(self, ids: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        captions = self._desk.captions.now()
        here = captions.own & np.isin(captions.ids, ids)
        return captions.measures["words"][here]

    def _duplicates(self, table: pa.Table) -> dict[str, Any]:
        groups = self._desk.snapshot.groups().table
        many = groups.filter(
            pc.and_(pc.greater(groups["group_size"], 1), pc.equal(groups["group"], groups["id"]))
        )
        largest = many.sort_by([("group_size", "descending"), ("id", "ascending")]).slice(0, _GROUPS_SHOWN)
        rows = largest.to_pylist()
        pictures = pictures_of(self._desk, [row["id"] for row in rows])
        return {
            "groups": many.num_rows,
            "pictures": int(pc.sum(many["group_size"]).as_py() or 0),
            "rejected": int(pc.sum(pc.equal(table["rule"], "near_duplicate")).as_py() or 0),
            "largest": [
                {"id": str(row["id"]), "size": row["group_size"], "picture": pictures[row["id"]]}
                for row in rows
            ],
        }


def _named(label: str, found: dict[str, Any] | None, limit: float | None) -> dict[str, Any]:
    return {"label": label, "limit": limit, "values": found}


def _floats(column: pa.ChunkedArray) -> np.ndarray[Any, Any]:
    return np.asarray(column.cast(pa.float64()).to_numpy(zero_copy_only=False), dtype=np.float64)
