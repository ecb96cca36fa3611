"""What a stage has nothing of: examples of one cause, from the stage's own tables as far as they are published."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.passed_over import STATUS
from spine.places import shown_place
from spine.run import Run, part_paths
from spine.table_files import read_table
from spine.tables import CAPTIONS, IMAGES, LINKS, STATUSES

_TABLES = {
    "embed concepts": ("concepts/statuses", STATUSES, ("input", "message")),
    "embed pool": ("pool/statuses", STATUSES, ("input", "message")),
    "fetch": ("images", IMAGES, ("id", "url", "message")),
    "links": ("links", LINKS, ("id", "url", "message")),
    "caption": ("captions", CAPTIONS, ("id", "message")),
}
_STATES = pa.array(["failed", "changed", STATUS])
_PARTS_READ = 50


def examples(run: Run, stage: str, reason: str, count: int = 5) -> list[dict[str, Any]]:
    """Some pictures that failed, or were passed over, for this reason.

    Args:
        run: The run.
        stage: As the job's journal names it. Those that keep no row of what failed have no examples.
        reason: As the job's journal counts it.
        count: At most.

    Returns:
        `what` failed, an id as decimal text or the name of an input; `message`, and `url` where there is one.
    """
    if stage not in _TABLES:
        return []
    folder, schema, columns = _TABLES[stage]
    wanted = ["status", "reason", *columns]
    found: list[dict[str, Any]] = []
    for path in reversed(part_paths(run.folder / folder)[-_PARTS_READ:]):
        table = read_table(path, pa.schema([schema.field(name) for name in wanted]))
        # What changed is its own reason: links counts it among the lost, and it did not fail.
        named = pc.coalesce(table.column("reason"), table.column("status"))
        failed = table.filter(pc.and_(pc.is_in(table.column("status"), _STATES), pc.equal(named, reason)))
        found += failed.slice(0, count - len(found)).select(list(columns)).to_pylist()
        if len(found) >= count:
            break
    return [
        {
            "what": shown_place(str(row.get("input") or row.get("id")), run.folder),
            "url": row.get("url"),
            "message": shown_place(row["message"] or "", run.folder),
        }
        for row in found
    ]
