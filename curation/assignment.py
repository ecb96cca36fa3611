"""Which centroid a picture goes to, where several want it and each has room for so many.

Pictures ask the centroid they are most similar to; a full centroid keeps those it ranks highest; who is
turned away asks the next. The outcome doesn't depend on the order of asking: no picture could sit at a
centroid nearer to it in the place of one ranked lower there.

Source: Gale and Shapley, "College admissions and the stability of marriage", American Mathematical
Monthly 69, 1962.
"""

import numpy as np
import numpy.typing as npt

from curation.candidates import Ints

Mask = npt.NDArray[np.bool_]


def fill_quotas(*, centroid: Ints, rank: Ints, first: Mask, quota: Ints) -> Mask:
    """The rows that have a place, each row for itself: as many as its centroid's quota, by rank.

    Args:
        centroid: Shape (n,).
        rank: Within its centroid, shape (n,).
        first: Rows that have a place in any case, also beyond the quota; what they leave of it is for the
            others. Shape (n,).
        quota: Rows of each centroid id, shape (k,).
    """
    order = np.lexsort((rank, ~first, centroid))
    inside = _position(centroid[order])
    placed = np.zeros(len(centroid), dtype=bool)
    placed[order[(inside < quota[centroid[order]]) | first[order]]] = True
    return placed


def assign(
    *,
    picture: Ints,
    centroid: Ints,
    rank: Ints,
    similarity: npt.NDArray[np.float32],
    first: Mask,
    quota: Ints,
) -> tuple[Mask, Mask]:
    """Give each picture at most one centroid, and each centroid its quota of pictures, more only of the first.

    Args:
        picture: Whole numbers from 0, shape (n,): row i says that centroid[i] could take picture[i].
        centroid: Shape (n,).
        rank: Of the picture within the centroid, shape (n,).
        similarity: A picture's wish: the highest first, ties to the lower centroid; shape (n,).
        first: Rows that a centroid never turns away; shape (n,).
        quota: Pictures of each centroid id, shape (k,).

    Returns:
        Which rows have a place, and which asked and were turned away for the quota.
    """
    n = len(picture)
    wishes = np.lexsort((centroid, -similarity, picture))
    starts = np.flatnonzero(np.diff(picture[wishes], prepend=-1))
    ends = np.append(starts[1:], n)
    at = starts.copy()  # where in `wishes` each picture stands
    asking = np.arange(len(starts))
    placed, refused = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    owner = np.empty(n, dtype=np.int64)  # row to its place in `starts`
    owner[wishes] = np.repeat(np.arange(len(starts)), ends - starts)
    centroids = int(centroid.max()) + 1 if n else 0
    held = np.empty(0, dtype=np.int64)
    while len(asking):
        new = wishes[at[asking]]
        touched = np.zeros(centroids, dtype=bool)
        touched[centroid[new]] = True
        contested = touched[centroid[held]]
        rows = np.concatenate([held[contested], new])
        keeps = fill_quotas(centroid=centroid[rows], rank=rank[rows], first=first[rows], quota=quota)
        held = np.concatenate([held[~contested], rows[keeps]])
        turned_away = rows[~keeps]
        refused[turned_away] = True
        asking = owner[turned_away]
        at[asking] += 1
        asking = asking[at[asking] < ends[asking]]
    placed[held] = True
    return placed, refused


def _position(groups: Ints) -> Ints:
    """For each row its place within its group, from 0; rows of one group stand together."""
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    lengths = np.diff(np.append(starts, len(groups)))
    return np.arange(len(groups)) - np.repeat(starts, lengths)
