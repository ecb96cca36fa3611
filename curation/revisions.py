"""Published releases stay as they are: what would differ becomes the next revision of its version.

release/pop-1.0 is followed by release/pop-1.0+1, release/pop-1.0+2 and on. A version can't hold a plus
sign itself, so that no revision is taken for a version.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from spine.errors import DataError
from spine.manifest import MANIFEST, Manifest, find_manifest
from spine.run import Run


@dataclass(frozen=True, slots=True)
class Revision:
    """One published state of a version."""

    number: int
    """0 for the version's first."""
    folder: Path
    manifest: Manifest


def revisions(run: Run, name: str, version: str) -> list[Revision]:
    """The published ones of a version, oldest first. One whose manifest can't be read counts as not published."""
    first = run.release(name, version)
    if not run.releases.is_dir():
        return []
    found = []
    for folder in run.releases.iterdir():
        tail = folder.name.removeprefix(first.name)
        if not folder.name.startswith(first.name) or not re.fullmatch(r"(\+[1-9]\d{0,8})?", tail):
            continue
        try:
            manifest = find_manifest(folder)
        except DataError:  # damaged: it is made again
            continue
        if manifest is not None:
            found.append(Revision(int(tail or 0), folder, manifest))
    return sorted(found, key=lambda each: each.number)


def newest(run: Run, name: str, version: str) -> Path:
    """The folder of a version's newest published revision; where there is none, the one it will have."""
    found = revisions(run, name, version)
    return found[-1].folder if found else run.release(name, version)


def last_published(run: Run) -> Path | None:
    """The folder of the release that was published last, of whatever name; None where there is none."""
    found = {folder: find_manifest(folder) for folder in published(run)}
    dated = [(manifest.created, folder) for folder, manifest in found.items() if manifest is not None]
    return max(dated)[1] if dated else None


def release_folder(run: Run, name: str) -> Path:
    """The folder of a published release by its own name, such as "pop-1.0+1", or by its path.

    Raises:
        DataError: There is none.
    """
    for folder in (run.releases / name, Path(name)):
        if (folder / MANIFEST).is_file():
            return folder
    there = ", ".join(each.name for each in published(run)) or "none"
    raise DataError(f"{run.releases}: no release {name}; published are: {there}")


def published(run: Run) -> list[Path]:
    """The folders of all published releases, by name."""
    folders = run.releases.iterdir() if run.releases.is_dir() else ()
    return sorted(folder for folder in folders if (folder / MANIFEST).is_file())
