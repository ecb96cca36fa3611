"""Pictures as pages show them: rows of a centroid or of a search, their thumbnails, and all that is known of one."""

import logging
import threading
from collections import OrderedDict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.found import Found
from curation.previews import BUSY, Preview, Previews, Wanted
from curation.story import why
from spine.errors import DataError, FactoryError
from spine.lists import BlockLists
from spine.run import Run
from spine.tables import NEIGHBOURS, SELECTION
from ui.board import Measured, Row, neighbour_rows
from ui.decision_log import DecisionLog
from ui.snapshot import Snapshot
from ui.thumbnails import Thumbnails

LARGE_PX = 1024
"""Longer side of a picture in the preview."""

_PREVIEW_WAIT_S = 60.0
_ROWS_KEPT = 20_000
_logger = logging.getLogger(__name__)


class Gone(FactoryError):
    """A picture that can't be shown: never, or not now."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Gallery:
    """The pictures of one run. Used from several threads."""

    def __init__(self, run: Run, snapshot: Snapshot, decisions: DecisionLog) -> None:
        self._run, self._snapshot, self._decisions = run, snapshot, decisions
        self._thumbnails = Thumbnails(run.thumbnails)
        self._previews = Previews(run)
        self._lock = threading.Lock()
        # One answer at a time, in the order they were asked for: ten threads that take the interpreter from each other
        # are twice as slow as in a row, and of ten that wait for a lock it is chance who waits longest.
        self._making = ThreadPoolExecutor(1, "rows")
        # What a page was shown and may ask a preview of: places and addresses never come from a browser.
        self._shown: OrderedDict[int, Wanted] = OrderedDict()
        """By id, those that no list kept out when they were shown."""

    def close(self) -> None:
        """Stop the processes that open pictures."""
        self._making.shutdown()
        self._thumbnails.close()
        self._previews.close()

    def of_centroid(self, centroid_id: int) -> list[Row]:
        """The neighbours of one centroid, in order of rank.

        Raises:
            DataError: The run has no such centroid.
        """
        snapshot = self._snapshot
        if not pc.any(pc.equal(snapshot.centroids().column("centroid_id"), centroid_id)).as_py():
            raise DataError(f"centroid {centroid_id} is not in this run; reload the page")
        return self._making.submit(self._rows_of, centroid_id).result()

    def _rows_of(self, centroid_id: int) -> list[Row]:
        neighbours = self._snapshot.neighbours(centroid_id)
        own, found = neighbours.num_rows, self._decisions.found(centroid_id)
        if found:
            neighbours = _with_found(neighbours, centroid_id, found)
        rows = self._rows(neighbours, self._snapshot.selection_of(centroid_id))
        for row in rows[own:]:
            row["origin"] = found[int(row["id"])].like
        return rows

    def of_search(self, found: pa.Table) -> list[Row]:
        """What a search in the pool found, best first."""
        return self._making.submit(self._rows, found, SELECTION.empty_table()).result()

    def thumbnail(self, sha256: str, *, blurred: bool, large: bool = False) -> bytes:
        """The thumbnail of a picture of this run, as WebP.

        Raises:
            Gone: 404 where there is none, 410 where a list keeps it out.
            ConfigError: A list can't be read.
        """
        picture = self._snapshot.find_picture(sha256)
        if picture is None:
            raise Gone(404, "no picture of this run has this hash")
        rule = self._snapshot.lists().blocks(
            picture_id=picture.picture_id, url=picture.url, sha256=sha256, md5=picture.md5, pdq=picture.pdq
        )
        if rule is not None:
            raise Gone(410, "a list keeps this picture out")
        try:
            return self._thumbnails.get(
                sha256, picture.place, blurred=blurred, side_px=LARGE_PX if large else None
            )
        except DataError as error:
            _logger.warning("no thumbnail of %s: %s", sha256, error)
            raise Gone(404, "this picture can't be opened") from None

    def preview(self, picture_id: int) -> Preview:
        """The thumbnail of a picture that was not fetched, brought in now by the rules of fetch.

        Raises:
            Gone: 404 where it can't be had, 410 where a list keeps it out, 503 where too much is asked for.
            ConfigError: A list can't be read.
        """
        with self._lock:
            wanted = self._shown.get(picture_id)
        if wanted is None:
            raise Gone(404, "the board no longer knows this picture: reload the page")
        try:
            preview = self._previews.ask(wanted).result(_PREVIEW_WAIT_S)
        except TimeoutError:
            raise Gone(503, "it takes too long to come; try again later") from None
        if preview.reason == BUSY:
            raise Gone(503, preview.message or BUSY)
        if preview.reason in ("takedown", "hash_block"):
            raise Gone(410, "a list keeps this picture out")
        if preview.reason is not None:
            raise Gone(404, preview.reason)
        return preview

    def about(self, picture_id: int) -> dict[str, Any]:
        """All that the run knows of a picture that pages were shown: its story, line by line, and what people said.

        Raises:
            Gone: 404 where no page was shown it, 410 where a list keeps it out.
            DataError: No table of the run has it.
        """
        with self._lock:
            shown = self._shown.get(picture_id)
        if shown is None:
            raise Gone(404, "nothing is told of this picture")
        (image,) = self._snapshot.images().rows(np.array([picture_id], dtype=np.int64)).to_pylist()
        if _blocks(self._snapshot.lists(), picture_id, shown.url or image["url"], image) is not None:
            raise Gone(410, "a list keeps this picture out")
        said = self._decisions.judgements([picture_id])
        return {
            "id": str(picture_id),
            "story": why(self._run, picture_id, places=False),
            "judgements": said.get(picture_id, {}),
        }

    def is_hidden(self, sha256: str) -> bool:
        """Whether pages blur this picture until it is asked for."""
        picture = self._snapshot.find_picture(sha256)
        return picture is not None and self._snapshot.is_unsafe(picture.picture_id)

    def _rows(self, neighbours: pa.Table, selection: pa.Table) -> list[Row]:
        snapshot, lists = self._snapshot, self._snapshot.lists()
        ids: npt.NDArray[np.int64] = np.asarray(
            neighbours.column("id").to_numpy(zero_copy_only=False), dtype=np.int64
        )
        measured = Measured(
            snapshot.images().rows(ids),
            snapshot.scores().rows(ids),
            snapshot.groups().rows(ids),
            snapshot.captions().rows(ids),
            snapshot.manifest(self._run.scores) is not None,
            snapshot.pool_similarities().rows(ids) if snapshot.config().select.same_picture else None,
        )
        said = self._decisions.said(ids.tolist())
        rows = neighbour_rows(
            neighbours,
            measured,
            selection,
            said.verdicts,
            snapshot.config(),
            lambda picture, url, image: _blocks(lists, picture, url, image),
        )
        for row, picture in zip(rows, ids.tolist(), strict=True):
            tag, text = said.notes.get(picture, (None, None))
            row |= {"tag": tag, "note": text}
            if picture in said.differing:
                row["differing"] = said.differing[picture]
        self._remember(neighbours, rows)
        return rows

    def _remember(self, neighbours: pa.Table, rows: list[Row]) -> None:
        columns = [neighbours.column(name).to_pylist() for name in ("id", "url", "image_path", "sha256")]
        with self._lock:
            for picture, url, place, sha256, row in zip(*columns, rows, strict=True):
                self._shown.pop(picture, None)
                if row["state"] != "blocked":
                    self._shown[picture] = Wanted(picture_id=picture, url=url, place=place, sha256=sha256)
            while len(self._shown) > _ROWS_KEPT:
                self._shown.popitem(last=False)


def _with_found(neighbours: pa.Table, centroid_id: int, found: Mapping[int, Found]) -> pa.Table:
    """A centroid's neighbours, and after them what searches found and people keep in it."""
    known = set(neighbours.column("id").to_pylist())
    more = [
        {"centroid_id": centroid_id, "id": picture, "best_centroid": centroid_id, "similarity": 0.0}
        | each.values
        for picture, each in found.items()
        if picture not in known
    ]
    rows = [{"rank": neighbours.num_rows + place} | row for place, row in enumerate(more)]
    return pa.concat_tables([neighbours, pa.Table.from_pylist(rows, schema=NEIGHBOURS)])


def _blocks(lists: BlockLists, picture: int, url: str | None, image: Mapping[str, Any]) -> str | None:
    return lists.blocks(
        picture_id=picture, url=url, sha256=image["sha256"], md5=image["md5"], pdq=image["pdq"]
    )
