"""What became of each input of a collection: the statuses that say which shards are done, and their counts."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index_builder.sources.known_ids import KnownIds
from spine.run import part_path, part_paths
from spine.table_files import read_table
from spine.tables import STATUSES


def complete_shards(folder: Path, sizes: Sequence[int] | int) -> int:
    """Shards that are complete, from the first without a gap; files behind a gap are removed.

    Args:
        folder: The collection's folder.
        sizes: Inputs of each shard; or of every one but the last, where nobody knows how many there are. A
            shard with fewer is made again.
    """
    statuses = folder / "statuses"
    paths = part_paths(statuses)
    done = next((n for n, path in enumerate(paths) if path != part_path(statuses, n)), len(paths))
    for path in paths[done:]:
        path.unlink()
    # A shard before the last is full; the last may be the source's end, and is made again: it costs little
    # and a source that grew while it was read is then read to its end.
    if done:
        wanted = sizes if isinstance(sizes, int) else sizes[done - 1]
        if pq.read_metadata(part_path(statuses, done - 1)).num_rows < wanted:
            done -= 1
            part_path(statuses, done).unlink()
    for name, pattern in (("img_emb", "img_emb_*.npy"), ("metadata", "metadata_*.parquet")):
        for path in (folder / name).glob(pattern):
            if int(path.stem.rsplit("_", 1)[1]) >= done:
                path.unlink()
    return done


def embedded_ids(statuses: Path) -> KnownIds:
    """Ids of what is embedded already: a later equal picture is a duplicate, as without the interruption."""
    ids = KnownIds()
    columns = pa.schema([STATUSES.field("status"), STATUSES.field("id")])
    for path in part_paths(statuses):
        table = read_table(path, columns)
        ids.extend(table.filter(pc.equal(table["status"], "embedded"))["id"].to_numpy())
    return ids


def counts_of(statuses: Path) -> dict[str, int]:
    """Inputs, those of each status, and the failures of each reason: they add up. One part is read at a time."""
    inputs, by_status, by_reason = 0, Counter[str](), Counter[str]()
    columns = pa.schema([STATUSES.field("status"), STATUSES.field("reason")])
    for path in part_paths(statuses):
        table = read_table(path, columns)
        inputs += table.num_rows
        for column, counted in (("status", by_status), ("reason", by_reason)):
            for entry in pc.value_counts(table[column].drop_null().combine_chunks()).to_pylist():
                counted[entry["values"]] += entry["counts"]
    counts = {"inputs": inputs} | {name: by_status[name] for name in ("embedded", "duplicate", "failed")}
    return counts | {f"failed_{reason}": by_reason[reason] for reason in sorted(by_reason)}


def reasons_of(counts: dict[str, int]) -> str:
    """The failures by reason, for a person."""
    reasons = {name.removeprefix("failed_"): n for name, n in counts.items() if name.startswith("failed_")}
    return ", ".join(f"{reason} {n:,}" for reason, n in reasons.items()) or "no pictures in it"
