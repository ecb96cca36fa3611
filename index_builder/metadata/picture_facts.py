"""What can be said of the pool's pictures once all centroids' neighbours are known."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.near_duplicates import near_duplicate_groups
from spine.tables import NEIGHBOURS, Vectors

COMPARED_AT_ONCE = 50_000
"""Pictures up to which all are compared with all; above, those of one best centroid with each other."""

JUDGED_BY = pa.schema(
    [
        *[NEIGHBOURS.field(name) for name in ("centroid_id", "rank", "similarity")],
        pa.field("row", pa.int64()),
        *[NEIGHBOURS.field(name) for name in ("id", "width", "height", "aesthetic", "sha256")],
    ]
)
"""The columns of what was found that the facts are told from."""

Order = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """Facts of each row found, in the order of the rows."""

    best_centroid: npt.NDArray[np.int32]
    """Of all centroids that found its picture, the most similar; ties to the lower id. Shape (rows,)."""
    duplicate_of: pa.Array
    """Id of the picture that stands for it, null where it stands for itself; int64 (rows,)."""
    first: npt.NDArray[np.bool_]
    """False where its centroid has the same picture at a lower rank already; shape (rows,)."""
    pictures: int
    """Different pictures."""


def picture_facts(
    found: pa.Table, near_duplicate: float, vectors: Callable[[Rows], Vectors | None]
) -> PictureFacts:
    """Tell best centroids and duplicates.

    Pictures whose bytes have one SHA-256 are duplicates whatever their vectors say. Of duplicates the one with
    the larger area stands for the others, then the more beautiful, the nearer, the lower id. Of more than
    COMPARED_AT_ONCE pictures only those with the same best centroid are compared by their vectors: what that
    misses is found later, on the pictures themselves.

    Args:
        found: JUDGED_BY, sorted by centroid_id and rank.
        near_duplicate: Similarity from which two pictures are one; 1 and above finds none.
        vectors: Gives the stored vectors of rows; None where there are none, and no duplicate is known.
    """
    columns = {name: found.column(name).to_numpy() for name in ("centroid_id", "id", "row", "similarity")}
    ids, centroid, similarity = columns["id"], columns["centroid_id"], columns["similarity"]
    order = np.lexsort((centroid, -similarity, ids))
    picture, best = np.unique(ids[order], return_index=True)
    best = order[best]  # of each picture the row of its best centroid
    place = np.searchsorted(picture, ids)  # of each row its picture
    stands = _duplicates(found.take(pa.array(best)), near_duplicate, vectors)
    duplicate_of = pa.array(picture[stands][place], mask=(stands == np.arange(len(stands)))[place])
    return PictureFacts(
        best_centroid=centroid[best][place],
        duplicate_of=duplicate_of.cast(pa.int64()),
        first=_first_of_each(centroid, ids),
        pictures=len(picture),
    )


def _first_of_each(centroid: npt.NDArray[np.int32], ids: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    order = np.lexsort((ids, centroid))  # stable: within a pair by rank, as the rows come
    again = (np.diff(centroid[order]) == 0) & (np.diff(ids[order]) == 0)
    first = np.ones(len(ids), dtype=bool)
    first[order[1:][again]] = False
    return first


def _duplicates(
    pictures: pa.Table, near_duplicate: float, vectors: Callable[[Rows], Vectors | None]
) -> npt.NDArray[np.int64]:
    """Of each picture the one that stands for it, by place in the table."""
    best_first = _best_first(pictures)
    of_one_content = _first_of_content(pictures, best_first)
    stands = of_one_content.copy()
    if near_duplicate >= 1:
        return stands
    rows = pictures.column("row").to_numpy()
    alone = of_one_content == np.arange(len(stands))
    for members in _compared(pictures, best_first[alone[best_first]]):
        stored = vectors(rows[members])
        if stored is None:
            break
        stands[members] = members[near_duplicate_groups(stored, near_duplicate)]
    return stands[of_one_content]


def _first_of_content(pictures: pa.Table, best_first: Order) -> npt.NDArray[np.int64]:
    """Of each picture the best with the same bytes, itself where there is none or they aren't known; by place."""
    stands = np.arange(pictures.num_rows, dtype=np.int64)
    content = pictures.column("sha256")
    known = best_first[content.is_valid().to_numpy()[best_first]]
    if len(known):
        codes = content.take(pa.array(known)).combine_chunks().dictionary_encode().indices.to_numpy()
        _, first, group = np.unique(codes, return_index=True, return_inverse=True)
        stands[known] = known[first[group]]
    return stands


def _compared(pictures: pa.Table, best_first: Order) -> Iterator[Order]:
    """Sets of pictures to compare among each other, each best first."""
    if len(best_first) <= COMPARED_AT_ONCE:
        if len(best_first):
            yield best_first
        return
    centroid = pictures.column("centroid_id").to_numpy()[best_first]
    by_centroid = best_first[np.argsort(centroid, kind="stable")]
    yield from np.split(by_centroid, np.cumsum(np.unique(centroid, return_counts=True)[1])[:-1])


def _best_first(pictures: pa.Table) -> Order:
    width, height, aesthetic = (
        pictures.column(name).to_numpy().astype(np.float64) for name in ("width", "height", "aesthetic")
    )  # null is NaN, which sorts last
    similarity = pictures.column("similarity").to_numpy()
    return np.lexsort((pictures.column("id").to_numpy(), -similarity, -aesthetic, -(width * height)))
