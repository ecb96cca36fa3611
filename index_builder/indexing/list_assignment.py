"""Which list a vector goes to while an index is built, found by other means than FAISS's where those are cheaper.

Comparing every vector with every list's middle is most of the work of building. On a CPU it is done in products of
8-bit whole numbers, which take a fourth of the time of FAISS's and are the same on every machine. Where two middles
are nearly as near as each other, rounding may take the second: a search finds the vector there as well.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.gpu import nearest_on_gpu
from index_builder.numerics.integer_products import Grid, most_similar, product_threads
from index_builder.numerics.stored_vectors import StoredVectors
from spine.tables import Vectors

Lists = npt.NDArray[np.int64]
"""List of each vector, shape (n,)."""

_MANY_LISTS = 1_024  # below it takes little time either way
_GRID_ROWS = 16_384  # vectors that the grid of whole numbers is laid by


def list_finder(trained: Any, vectors: StoredVectors) -> Callable[[Vectors], Lists] | None:
    """What finds the lists of vectors that the index's transforms have turned; None to leave it to FAISS.

    Args:
        trained: An index with inverted lists.
        vectors: All that it gets.
    """
    faiss = load_faiss()
    on_gpu = nearest_on_gpu(trained)
    if on_gpu is not None:
        return on_gpu
    lists = faiss.extract_index_ivf(trained)
    plain = faiss.downcast_index(lists.quantizer)
    by_products = trained.metric_type == faiss.METRIC_INNER_PRODUCT and isinstance(plain, faiss.IndexFlat)
    if lists.nlist < _MANY_LISTS or not by_products:
        return None
    grid = Grid.of(turned(trained, vectors[np.arange(0, vectors.n, max(1, vectors.n // _GRID_ROWS))]))
    middles = plain.reconstruct_n(0, lists.nlist)
    codes, constants = grid.codes(middles), grid.constants(middles, spherical=True)

    def find(some: Vectors) -> Lists:
        with product_threads() as pool:
            return most_similar(grid.codes(some), codes, constants, pool)

    return find


def add_to_lists(
    part: Any, vectors: Vectors, numbers: npt.NDArray[np.int64], find: Callable[[Vectors], Lists]
) -> None:
    """Add vectors to an index with inverted lists.

    Args:
        part: The index; its transforms are applied.
        vectors: Shape (n, d), float32.
        numbers: Row numbers, shape (n,).
        find: As `list_finder` gives.
    """
    faiss = load_faiss()
    given = turned(part, vectors)
    own = np.ascontiguousarray(find(given))  # a name of its own: FAISS's pointers keep no array alive
    lists = faiss.downcast_index(faiss.extract_index_ivf(part))
    lists.add_core(len(given), *(faiss.swig_ptr(array) for array in (given, numbers, own)))
    part.ntotal = lists.ntotal


def turned(index: Any, vectors: Vectors) -> Vectors:
    """Vectors (n, d) as the index's transforms turn them for its lists."""
    faiss = load_faiss()
    if isinstance(index, faiss.IndexPreTransform):
        for place in range(index.chain.size()):
            vectors = faiss.downcast_VectorTransform(index.chain.at(place)).apply(vectors)
    return vectors
