"""Captions of several captioners side by side: those of the one that is asked now, and the others' on shelves.

The stage's own parts are always of one captioner, the one that [caption] names: later stages join them by picture. What
other captioners wrote lies in captions/others/CAPTIONER/ and comes back when [caption] names that one again.
"""

from pathlib import Path

import pyarrow as pa

from spine.errors import DataError
from spine.publish import sync_folder
from spine.run import Run, part_path, part_paths
from spine.table_files import read_table
from spine.tables import CAPTIONS

_WHOSE = pa.schema([CAPTIONS.field("captioner")])


def bring_forward(run: Run, captioner: str, *, discard: bool = False) -> None:
    """Leave in captions/ the parts of this captioner alone, and put all others on their shelves.

    Each part is moved by one rename and says itself whose it is, so that a kill in between loses and doubles nothing.

    Args:
        run: Nobody else works on its captions.
        captioner: The one that is asked now.
        discard: Its parts are thrown away, and so are parts that can't be read.

    Raises:
        DataError: A part is damaged.
    """
    for path in part_paths(run.captions):
        try:
            owner = owner_of(path)
        except DataError:
            if not discard:
                raise
            owner = captioner
        if owner != captioner:
            _move(path, run.other_captions / owner)
    shelf = run.other_captions / captioner
    for path in part_paths(shelf):
        _move(path, run.captions)
    if shelf.is_dir():
        shelf.rmdir()
    if run.other_captions.is_dir() and not any(run.other_captions.iterdir()):
        run.other_captions.rmdir()
    if discard:
        for path in part_paths(run.captions):
            path.unlink()


def parts_of(run: Run, captioner: str) -> list[Path]:
    """Where this captioner's parts are now.

    Raises:
        DataError: A part is damaged.
    """
    here = [path for path in part_paths(run.captions) if owner_of(path) == captioner]
    return here + part_paths(run.other_captions / captioner)


def owner_of(path: Path) -> str:
    """The captioner that a part's captions are of.

    Raises:
        DataError: It is damaged, or has no row.
    """
    owners = read_table(path, _WHOSE)["captioner"].unique().to_pylist()
    if len(owners) != 1 or not owners[0]:
        raise DataError(f"{path}: captions of {len(owners)} captioners; caption again with --force")
    return str(owners[0])


def _move(path: Path, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    numbers = [int(each.stem.removeprefix("part-")) for each in part_paths(folder)]
    path.rename(part_path(folder, max(numbers, default=-1) + 1))
    sync_folder(folder)
    sync_folder(path.parent)
