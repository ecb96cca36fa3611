"""The neighbours of one centroid out of parts that hold millions: only the row groups that have it are read.

A row group holds hundreds of centroids; those read lately are kept, so that the next centroid costs nothing.
"""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from spine.tables import NEIGHBOURS

_KEPT_BYTES = 200_000_000
_CENTROID = NEIGHBOURS.names.index("centroid_id")


class NeighbourGroups:
    """The published neighbours of a run. Used from several threads."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Read which centroids each row group holds, from the files' own statistics.

        Args:
            paths: Parts of spine.tables.NEIGHBOURS.
        """
        self._ranges: list[tuple[Path, int, float, float]] = []
        for path in paths:
            with pq.ParquetFile(path) as file:
                for group in range(file.metadata.num_row_groups):
                    statistics = file.metadata.row_group(group).column(_CENTROID).statistics
                    known = statistics is not None and statistics.has_min_max
                    least, most = (statistics.min, statistics.max) if known else (-np.inf, np.inf)
                    self._ranges.append((path, group, least, most))
        self._lock, self._reading = threading.Lock(), threading.Lock()
        self._kept: OrderedDict[tuple[Path, int], pa.Table] = OrderedDict()

    def of(self, centroid_id: int) -> pa.Table:
        """A centroid's neighbours in order of rank; empty where it has none."""
        tables = [
            table.filter(pc.equal(table.column("centroid_id"), centroid_id))
            for path, group, least, most in self._ranges
            if least <= centroid_id <= most
            for table in (self._read(path, group),)
        ]
        return pa.concat_tables(tables).sort_by("rank") if tables else NEIGHBOURS.empty_table()

    def _read(self, path: Path, group: int) -> pa.Table:
        key = (path, group)
        table = self._find(key)
        if table is not None:
            return table
        with self._reading:  # one reads, the others who want the same wait for it
            table = self._find(key)
            if table is not None:
                return table
            with pq.ParquetFile(path, page_checksum_verification=True) as file:
                read = file.read_row_group(group, columns=NEIGHBOURS.names)
            table = read.select(NEIGHBOURS.names).cast(NEIGHBOURS)
            with self._lock:
                self._kept[key] = table
                while len(self._kept) > 1 and sum(each.nbytes for each in self._kept.values()) > _KEPT_BYTES:
                    self._kept.popitem(last=False)
        return table

    def _find(self, key: tuple[Path, int]) -> pa.Table | None:
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]
