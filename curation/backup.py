"""Backup: what people made of a run, copied while they go on working.

Settings, prompts, decisions, added concepts, the record of reveals and the lists in force: all that no stage can make
again. The decisions are copied by SQLite's own backup, for a copy of a file that is being written to loses
what its journal holds. With `everything` the finished stages are copied too, each as its manifest says.
"""

import contextlib
import shutil
import sqlite3
import uuid
from dataclasses import dataclass
from pathlib import Path

from spine.config import load_config
from spine.errors import DataError
from spine.manifest import MANIFEST, find_manifest, read_manifest, verify
from spine.progress import SILENT, Progress
from spine.publish import publish_bytes, sync_folder
from spine.run import SIDE_FOLDERS, STAGES, Run

_PAGES = 256  # of the database copied at a time; between two, writers go on


@dataclass(frozen=True, slots=True)
class Backup:
    """What was copied."""

    folder: Path
    events: int
    """Number of the newest decision in it."""
    concepts: int
    """That curators added."""
    stages: tuple[str, ...]
    """Finished ones that were copied, by name."""


def backup(run: Run, target: Path, *, everything: bool = False, progress: Progress = SILENT) -> Backup:
    """Copy a run.

    Args:
        run: May be worked on; one stage that is being written is left out.
        target: A folder that isn't there yet; it appears whole or not at all.
        everything: Copy the finished stages and releases too.
        progress: Told of what is copied.

    Raises:
        DataError: The target is there, a file is damaged, or a list can't be read.
    """
    run.require()
    if target.exists():
        raise DataError(f"{target}: there already; name a folder that isn't")
    temporary = target.with_name(f".{target.name}.part-{uuid.uuid4().hex[:12]}")
    copy = Run(temporary)
    try:
        temporary.mkdir(parents=True)
        shutil.copyfile(run.config, copy.config)
        events = _copy_decisions(run.decisions, copy.decisions)
        concepts = sorted(run.added.glob("concept-*.json"))
        for path in (*concepts, *(each for each in (run.prompts, run.reveals) if each.is_file())):
            publish_bytes(temporary / path.relative_to(run.folder), path.read_bytes())
        _copy_lists(run, temporary)
        stages = _copy_stages(run, temporary, progress) if everything else ()
        sync_folder(temporary)
        temporary.rename(target)
        sync_folder(target.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return Backup(target, events, len(concepts), stages)


def _copy_decisions(path: Path, target: Path) -> int:
    """Copy the database as it is at one moment, and see that the copy is sound.

    Returns:
        Number of its newest event, 0 where there are none.
    """
    if not path.is_file():
        return 0
    try:
        with (
            contextlib.closing(sqlite3.connect(path, timeout=30.0)) as source,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy, pages=_PAGES)
            if copy.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone() is None:
                return 0
            # Not of subjects: SQLite 3.40 takes every row of such a table (no rowid, a column that may not be
            # null behind its key) for a null. Reading it whole finds damaged pages too.
            (said,) = copy.execute("PRAGMA integrity_check(events)").fetchone()
            if said != "ok":
                raise DataError(f"{path}: damaged ({said}); put it right, or restore an earlier backup")
            copy.execute("SELECT count(target), sum(length(id)) FROM subjects").fetchone()
            return int(copy.execute("SELECT coalesce(max(event), 0) FROM events").fetchone()[0])
    except sqlite3.DatabaseError as error:
        raise DataError(f"{path}: {error}; put it right, or restore an earlier backup") from None


def _copy_lists(run: Run, folder: Path) -> None:
    """Copy the lists in force: those inside the run to their own place, others to lists/."""
    config = load_config(run.config).lists
    for kind, names in (("takedown", config.takedown), ("hash_block", config.hash_block)):
        for number, name in enumerate(names):
            path = Path(name)
            try:
                content = path.read_bytes()
            except OSError as error:
                raise DataError(
                    f"[lists] {path}: can't be read ({error}); nothing goes on without its lists"
                ) from None
            inside = path.is_relative_to(run.folder.absolute())
            own = path.relative_to(run.folder.absolute()) if inside else f"lists/{kind}-{number}-{path.name}"
            publish_bytes(folder / own, content)


def _copy_stages(run: Run, target: Path, progress: Progress) -> tuple[str, ...]:
    """Copy the finished stages and releases, their manifests last."""
    folders = [run.folder / name for name in (*STAGES, *SIDE_FOLDERS) if name != "release"]
    folders += sorted(run.releases.iterdir()) if run.releases.is_dir() else []
    copied = []
    for folder in folders:
        if find_manifest(folder) is None:
            continue
        name = folder.relative_to(run.folder)
        records = read_manifest(folder).files
        progress.begin(f"backup {name}", len(records), "files")
        for record in records:
            path = target / name / record.path
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / record.path, path)
            progress.advance(1)
        for extra in ("plan.json", MANIFEST):
            if (folder / extra).is_file():
                shutil.copyfile(folder / extra, target / name / extra)
        problems = verify(target / name)
        if problems:
            raise DataError(f"{folder}: changed or damaged while it was copied: {problems[0]}; back up again")
        progress.end()
        copied.append(name.as_posix())
    return tuple(copied)
