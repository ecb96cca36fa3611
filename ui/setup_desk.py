"""What the Setup page shows: servers and index, models, lists, access, disk, and how the settings differ."""

import hashlib
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from spine.config import DEMO, PRESETS, load_config, preset, with_demo_models
from spine.config_edit import settings_of
from spine.endpoints import models_at
from spine.errors import ConfigError, FactoryError
from spine.lists import BlockLists
from spine.manifest import find_manifest
from spine.run import part_paths
from spine.settings import Config, FiltersConfig, ListsConfig
from ui.desk import Desk
from ui.documents import documents

PARTS = (
    *("concepts", "pool", "index", "centroids", "neighbours", "images", "scores", "selection", "captions"),
    *("previews", "release", "jobs", "thumbnails", "drawings"),
)
"""Folders of a run whose size is told."""

_ASKED = 5  # times the server is asked, for its latency
_DISK_KEPT_S = 60.0
_WALK_S = 20.0
_PLACES = frozenset({("concepts", "source"), ("pool", "source"), ("pool", "index"), ("pool", "server")})


class SetupDesk:
    """One run's surroundings as the Setup page sees them. Used from several threads."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._walking = threading.Lock()
        self._disk: tuple[float, dict[str, Any]] | None = None

    def about(self) -> dict[str, Any]:
        """All that is known without asking anybody.

        Raises:
            ConfigError: The settings can't be read.
        """
        config = self._desk.snapshot.config()
        return {
            "run": str(self._desk.run.folder.absolute()),
            "version": version("popfactory"),
            "index": self._index(),
            "models": self._models(config),
            "lists": self.lists(config.lists),
            "filters": self._filters(config.filters),
            "preset": nearest_preset(config),
            "documents": documents(),
        }

    def server(self) -> dict[str, Any]:
        """Whether the retrieval server answers, how fast, and whether its model fits the run's centroids."""
        times = []
        state: dict[str, Any] = {}
        for _ in range(_ASKED):
            started = time.perf_counter()
            state = self._desk.search.state()
            times.append((time.perf_counter() - started) * 1000)
            if not state["ready"]:
                return state
        state |= {"ms_p50": sorted(times)[len(times) // 2], "ms_worst": max(times)}
        state["searches"] = self._searches()
        try:
            self._desk.search.ranking("text:a picture")
        except FactoryError as error:
            return state | {"fits": False, "trouble": str(error)}
        return state | {"fits": True}

    def _searches(self) -> dict[str, Any] | None:
        """The server's searches since it started, and within how many ms they came; None where it doesn't tell."""
        try:
            found = self._desk.search.answer_times()
        except FactoryError:
            return None
        if found is None:
            return None
        p50, p95 = (found.quantile(q) for q in (0.5, 0.95))
        if p50 is None or p95 is None:
            return {"count": 0, "ms_p50": None, "ms_p95": None}
        # What lies beyond the histogram's last end is told as that end: JSON knows no infinity.
        last = found.limits_s[-2] if len(found.limits_s) > 1 else 0.0
        beyond = p95 == float("inf")
        return {
            "count": found.count,
            "ms_p50": min(p50, last) * 1000,
            "ms_p95": min(p95, last) * 1000,
            "beyond": beyond,
        }

    def engines(self) -> list[dict[str, Any]]:
        """The caption servers of the settings, each with the models it says it has."""
        caption = load_config(self._desk.run.config).caption
        key = os.environ.get(caption.api_key_env, "") if caption.api_key_env else ""
        found = []
        for address in caption.endpoints:
            answer = models_at(address, key=key)
            trouble = answer.trouble
            if not trouble and caption.model not in answer.names:
                trouble = f"it has no model {caption.model}; it has {', '.join(answer.names) or 'none'}"
            if caption.api_key_env and not key:
                trouble = f"the environment variable {caption.api_key_env} with its key is not set"
            found.append({"address": address, "models": list(answer.names), "trouble": trouble})
        return found

    def lists(self, config: ListsConfig) -> list[dict[str, Any]]:
        """Each list file: entries, digest and age; or why it can't be read, which stops all pictures."""
        run = self._desk.run
        return [
            self._list(kind, name, run.folder / Path(name).expanduser())
            for kind, names in (("takedown", config.takedown), ("hash_block", config.hash_block))
            for name in names
        ]

    def disk(self) -> dict[str, Any]:
        """What each folder of the run takes; counted anew once a minute at most."""
        with self._walking:
            if self._disk is None or time.monotonic() - self._disk[0] > _DISK_KEPT_S:
                self._disk = (time.monotonic(), self._counted())
            return self._disk[1]

    def _counted(self) -> dict[str, Any]:
        until, sizes, whole = time.monotonic() + _WALK_S, {}, True
        for name in PARTS:
            size, complete = _size_of(self._desk.run.folder / name, lambda: time.monotonic() < until)
            whole &= complete
            if size:
                sizes[name] = size
        place = os.statvfs(self._desk.run.folder)
        return {
            "folders": sizes,
            "complete": whole,
            "free_bytes": place.f_bavail * place.f_frsize,
            "total_bytes": place.f_blocks * place.f_frsize,
        }

    def _index(self) -> dict[str, Any] | None:
        run = self._desk.run
        manifest = find_manifest(run.index)
        if manifest is None:
            return None
        try:
            report = json.loads((run.index / "index_report.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            report = {}
        search = report.get("search") or {}
        return {
            "kind": manifest.facts.get("kind"),
            "n": manifest.facts.get("n"),
            "d": manifest.facts.get("d"),
            "model": manifest.facts.get("model"),
            "nprobe": manifest.facts.get("nprobe"),
            "created": manifest.created,
            "size_bytes": sum(record.size_bytes for record in manifest.files),
            "recall": {
                name: search.get(name)
                for name in (
                    "k",
                    "recall_wanted",
                    "recall_reached",
                    "recall_at_10",
                    "recall_at_100",
                    "queries_per_s",
                )
            }
            if search.get("recall_at_100") is not None
            else None,
        }

    def _models(self, config: Config) -> list[dict[str, Any]]:
        """Who does what: as the settings name it, and as the finished stages wrote it down."""
        run = self._desk.run
        scores, captions = find_manifest(run.scores), find_manifest(run.captions)
        centroids = find_manifest(run.centroids)
        known = {
            "pictures and words": (config.clip.model, centroids.facts.get("model") if centroids else None),
            "captions": (config.caption.model, captions.facts.get("model") if captions else None),
        }
        for kind in ("aesthetic", "unsafe", "watermark"):
            said = scores.facts.get(kind) if scores else None
            known[f"{kind} score"] = (getattr(config.score, f"{kind}_head"), said)
        return [
            {
                "does": does,
                "setting": setting,
                "wrote": wrote,
                "demo": setting == DEMO or str(wrote or "").startswith("demo-"),
            }
            for does, (setting, wrote) in known.items()
        ]

    def _filters(self, config: FiltersConfig) -> list[dict[str, Any]]:
        """Each filter with its limit, and of how many pictures its value was measured, or is told by the pool."""
        limits = {
            "min_side_px": (config.min_side_px or None, "width", "width"),
            "pwatermark_max": (config.pwatermark_max, "watermark", "pwatermark"),
            "punsafe_max": (config.punsafe_max, "unsafe", "punsafe"),
            "aesthetic_min": (config.aesthetic_min.value, "aesthetic", "aesthetic"),
            "violence_max": (config.violence_max, "violence", None),
        }
        run = self._desk.run
        folders = {"images": run.images, "scores": run.scores, "pool": run.neighbours}
        found = {
            name: _known(part_paths(folder)) if find_manifest(folder) is not None else (0, {})
            for name, folder in folders.items()
        }
        told = []
        for name, (limit, measured, of_pool) in limits.items():
            rows, known = found["images" if measured == "width" else "scores"]
            pool_rows, pool_known = found["pool"]
            told.append(
                {
                    "filter": name,
                    "limit": limit,
                    "measured": [known.get(measured, 0), rows],
                    "of_pool": [pool_known.get(of_pool or "", 0), pool_rows],
                }
            )
        return told

    def _list(self, kind: str, name: str, path: Path) -> dict[str, Any]:
        told: dict[str, Any] = {"kind": kind, "path": name}
        try:
            lists = BlockLists.load(ListsConfig(**{kind: (str(path),)}), self._desk.run.folder)
            content = path.read_bytes()
        except (ConfigError, OSError) as error:
            return told | {"trouble": str(error)}
        return told | {
            "entries": lists.size,
            "digest": hashlib.sha256(content).hexdigest(),
            "changed": path.stat().st_mtime,
        }


def _known(paths: Sequence[Path]) -> tuple[int, dict[str, int]]:
    """Rows of a table kept in parts, and by column how many are not null; from the files' own statistics."""
    rows, known = 0, Counter[str]()
    for path in paths:
        about = pq.read_metadata(path)
        rows += about.num_rows
        for group in map(about.row_group, range(about.num_row_groups)):
            for column in map(group.column, range(group.num_columns)):
                if column.statistics is not None and column.statistics.has_null_count:
                    known[column.path_in_schema] += group.num_rows - column.statistics.null_count
    return rows, dict(known)


def nearest_preset(config: Config) -> dict[str, Any]:
    """The preset that these settings differ least from, and in which of them; sources aside."""
    found = []
    for name in PRESETS:
        for demo in (False, True):
            usual = with_demo_models(preset(name)) if demo else preset(name)
            wanted = {(each.table, each.key): each.value for each in settings_of(usual)}
            differing = [
                f"[{each.table}] {each.key}"
                for each in settings_of(config)
                if (each.table, each.key) not in _PLACES and wanted[each.table, each.key] != each.value
            ]
            found.append((len(differing), {"name": name, "demo_models": demo, "differing": differing}))
    return min(found, key=lambda pair: pair[0])[1]


def _size_of(folder: Path, goes_on: Callable[[], bool]) -> tuple[int, bool]:
    """Bytes of all files below a folder, and whether all were seen before `goes_on` said no."""
    size, waiting = 0, [folder]
    while waiting:
        if not goes_on():
            return size, False
        try:
            with os.scandir(waiting.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(Path(entry.path))
                    elif entry.is_file(follow_symlinks=False):
                        size += entry.stat(follow_symlinks=False).st_size
        except OSError:  # gone meanwhile, or never there
            continue
    return size, True
