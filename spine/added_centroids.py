"""Concepts that curators add, by a text or an example: centroids beside those that k-means found.

Each is a file of its own, RUN/added/concept-00000.json and on, written once and never changed: many may add
at the same time, and its number stays. On a run with k centroids of its own, number n is centroid k + n. Who
wants one no more leaves it out, as any other centroid (`curation.events`).
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from spine.errors import DataError
from spine.manifest import read_manifest
from spine.publish import publish_new
from spine.run import Run
from spine.table_files import read_table
from spine.tables import Vectors, centroids_schema, list_column, vectors_of

KINDS = ("text", "example")
"""What a curator can give."""

MAX_ADDED = 10_000
"""Concepts that can be added to one run."""

_IDS = pa.schema([("centroid_id", pa.int32())])
_LONGEST = 1_000  # signs of a label, source or name


@dataclass(frozen=True, kw_only=True, slots=True)
class AddedCentroid:
    """One concept that a curator added."""

    number: int
    """From 0, in the order of adding."""
    label: str
    kind: str
    """One of KINDS."""
    source: str
    """The text; or the id or place of the example."""
    embedding: tuple[float, ...]
    """d numbers, L2 norm 1."""
    model: str | None
    """The CLIP model that made it, as the centroids' manifest names it."""
    curator: str
    time: str
    """When, UTC."""


def add_centroid(
    run: Run, *, label: str, kind: str, source: str, embedding: Vectors, curator: str, model: str | None
) -> int:
    """Add a concept; `retrieve` asks for its neighbours from then on.

    Args:
        run: With finished centroids.
        label: What pages and the dataset call it.
        kind: One of KINDS.
        source: What it was made of.
        embedding: Shape (d,), of any length but 0.
        curator: Who adds it.
        model: The CLIP model that made the embedding.

    Returns:
        Its centroid id.

    Raises:
        DataError: The centroids aren't finished, or it doesn't fit them; or there are MAX_ADDED already.
    """
    manifest = read_manifest(run.centroids)
    unit = _unit(embedding, int(manifest.facts["d"]))
    if model != manifest.facts.get("model"):
        raise DataError(
            f"the concept's vector is of CLIP model {model}, the centroids are of {manifest.facts.get('model')}; "
            "make it with the same"
        )
    texts = {"label": label, "source": source, "curator": curator}
    for name, text in texts.items():
        if not text.strip() or len(text) > _LONGEST:
            raise DataError(f"{name}: a text of 1 to {_LONGEST:,} signs was needed")
    if kind not in KINDS:
        raise DataError(f"kind {kind!r} is none of {', '.join(KINDS)}")
    for number in range(len(list(run.added.glob("concept-*.json"))), MAX_ADDED):
        added = AddedCentroid(
            number=number,
            kind=kind,
            embedding=tuple(unit.tolist()),
            model=model,
            time=datetime.now(UTC).isoformat(timespec="milliseconds"),
            **texts,
        )
        if publish_new(run.added_concept(number), json.dumps(asdict(added), ensure_ascii=False).encode()):
            return int(read_table(run.centroids_table, _IDS).num_rows) + number
    raise DataError(
        f"{run.added}: {MAX_ADDED:,} concepts were added already; start a run with them as [concepts]"
    )


def added_centroids(run: Run) -> list[AddedCentroid]:
    """Those added so far, in order.

    Raises:
        DataError: A file is damaged.
    """
    found: list[AddedCentroid] = []
    for path in sorted(run.added.glob("concept-*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            added = AddedCentroid(**content | {"embedding": tuple(map(float, content["embedding"]))})
            if added.number != len(found):
                raise ValueError(f"number {added.number} where {len(found)} was due")
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path}: damaged ({error}); restore it from a backup") from None
        found.append(added)
    return found


def added_digest(added: Sequence[AddedCentroid]) -> str:
    """SHA-256 over them, in hex: an input of what is made from them."""
    return hashlib.sha256(json.dumps([asdict(each) for each in added]).encode()).hexdigest()


def read_centroids(run: Run, columns: Sequence[str] | None = None) -> pa.Table:
    """All centroids in order of their ids: k-means', and behind them those that were added.

    Args:
        run: With finished centroids.
        columns: Of `spine.tables.centroids_schema`, and `added_by`: the curator, null for k-means' own. None
            for all. An added one stands on the map where the nearest of the others does; its size is 0.

    Raises:
        DataError: The centroids aren't finished or are damaged.
    """
    d = int(read_manifest(run.centroids).facts["d"])
    schema = centroids_schema(d)
    names = [*schema.names, "added_by"] if columns is None else list(columns)
    added = added_centroids(run)
    needed = [*names, *(["embedding"] if added and {"map_x", "map_y"}.intersection(names) else [])]
    wanted = pa.schema([schema.field(name) for name in dict.fromkeys(needed) if name != "added_by"])
    table = read_table(run.centroids_table, wanted)
    if added:
        table = pa.concat_tables([table, _rows(added, table, schema).select(wanted.names).cast(wanted)])
    by = [None] * (table.num_rows - len(added)) + [each.curator for each in added]
    return table.append_column("added_by", pa.array(by, pa.string())).select(names)


def _rows(added: Sequence[AddedCentroid], table: pa.Table, schema: pa.Schema) -> pa.Table:
    vectors = np.array([each.embedding for each in added], dtype=np.float32)
    rows = {
        "centroid_id": np.arange(table.num_rows, table.num_rows + len(added), dtype=np.int32),
        "embedding": list_column(vectors, pa.float32()),
        "size": np.zeros(len(added), dtype=np.int64),
        "label": [each.label for each in added],
        "exemplar_ids": [[] for _ in added],
        "inertia_share": np.zeros(len(added), dtype=np.float32),
        "map_x": np.full(len(added), 0.5, dtype=np.float32),
        "map_y": np.full(len(added), 0.5, dtype=np.float32),
    }
    if "embedding" in table.column_names and table.num_rows:
        nearest = pa.array((vectors @ vectors_of(table.column("embedding")).T).argmax(axis=1))
        for name in ("map_x", "map_y"):
            if name in table.column_names:
                rows[name] = table.column(name).take(nearest).to_numpy()
    arrays = [
        pa.array(rows[name], schema.field(name).type) if name != "embedding" else rows[name]
        for name in schema.names
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


def _unit(embedding: Vectors, d: int) -> Vectors:
    given = np.asarray(embedding, dtype=np.float32)
    norm = float(np.linalg.norm(given)) if given.shape == (d,) else 0.0
    if given.shape != (d,) or not np.isfinite(norm) or norm < 1e-6:
        raise DataError(
            f"the concept's vector has shape {given.shape} or no direction; {d} finite numbers were needed"
        )
    unit: Vectors = given / np.float32(norm)
    return unit
