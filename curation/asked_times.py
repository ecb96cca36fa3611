"""When addresses were asked for their pictures.

Beside the rows of images/ and no part of their digest: what came is the same however often a fetch was stopped, when
it was asked for is not.
"""

import shutil
from collections.abc import Sequence

import pyarrow as pa

from curation.host_queue import Row
from spine.publish import publish_table
from spine.run import Run, part_path, part_paths
from spine.table_files import read_parts, read_table
from spine.tables import ASKED


class AskedTimes:
    """Written part by part while fetch goes on, and put together at its end. One process writes."""

    def __init__(self, run: Run) -> None:
        """Nothing is read yet."""
        self._run = run

    def add(self, rows: Sequence[Row]) -> None:
        """Write down those of the rows whose address was asked: their `asked`, in seconds since 1970."""
        asked = [
            {"id": row["id"], "asked": int(1000 * row["asked"])}
            for row in rows
            if row.get("asked") is not None
        ]
        if asked:
            folder = self._run.asked_parts
            folder.mkdir(exist_ok=True)
            publish_table(part_path(folder, len(part_paths(folder))), pa.Table.from_pylist(asked, ASKED))

    def finish(self) -> None:
        """Put the parts together, with those of before: of each picture the last time."""
        if not part_paths(self._run.asked_parts):
            return
        before = [self._run.asked_table] if self._run.asked_table.is_file() else []
        table = pa.concat_tables(
            [*(read_table(path, ASKED) for path in before), read_parts(self._run.asked_parts, ASKED)]
        )
        latest = table.group_by("id").aggregate([("asked", "max")]).rename_columns(ASKED.names)
        publish_table(self._run.asked_table, latest.sort_by("id").cast(ASKED))
        shutil.rmtree(self._run.asked_parts)
