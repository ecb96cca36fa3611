"""One index searched by whatever answers fastest: a GPU's copy, a kernel of ours, or FAISS itself."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from index_builder.indexing.graph_search import GraphSearch
from index_builder.indexing.sign_scan import SignScan
from index_builder.metadata.metadata_rows import Rows
from index_builder.numerics.faiss_library import load_faiss
from index_builder.numerics.gpu import GpuIndex
from spine.tables import Vectors

_ENDLESS = 2**62  # bytes of an index that is no file: no GPU holds it


class IndexSearch:
    """Searches a FAISS index that stays as it is. Any number of threads may at once."""

    def __init__(self, index: Any, path: Path, nlist: int, nprobe: int, copies_bytes: int) -> None:
        """Get ready; an index of which a kernel keeps codes is read once.

        Args:
            index: The FAISS index, downcast.
            path: Its file, or its folder if it stays on disk.
            nlist: Its inverted lists, 0 for none.
            nprobe: Lists searched a query where a call says nothing.
            copies_bytes: Memory that a kernel's copy of the index may take.
        """
        self._index, self._nlist, self._nprobe = index, nlist, nprobe
        self._on_gpus = GpuIndex.of(index, path.stat().st_size if path.is_file() else _ENDLESS)
        self._scan, self._graph = SignScan.of(index, copies_bytes), GraphSearch.of(index, copies_bytes)
        # FAISS only reads them, so that searches may share them. At each step of making them it lets go of Python's
        # lock, and another thread has it then: together they took as long as to read forty rows of metadata.
        self._usual = self._new_parameters(nprobe)

    def search(self, queries: Vectors, depth: int, nprobe: int = 0) -> tuple[npt.NDArray[np.float32], Rows]:
        """As the FAISS index itself answers, but that equals, and of some kinds all, come in any order.

        Args:
            queries: Shape (q, d), float32, contiguous, finite.
            depth: Rows wanted, up to as many as there are.
            nprobe: Lists a query; 0 for the usual.

        Returns:
            Inner products or squared distances, and rows, (q, depth) each; row -1 where fewer are found.
        """
        if self._on_gpus is not None:
            found = self._on_gpus.search(queries, depth, nprobe or self._nprobe, self.parameters(nprobe))
            if found is not None:
                return found
        if self._scan is not None:
            return self._scan.search(queries, depth, nprobe or self._nprobe)
        if self._graph is not None:
            return self._graph.search(queries, depth)
        answer: tuple[npt.NDArray[np.float32], Rows] = self._index.search(
            queries, depth, params=self.parameters(nprobe)
        )
        return answer

    def on_gpus(self, k: int, nprobe: int = 0) -> bool:
        """Whether GPUs have a copy and answer for so many neighbours and lists a query; 0 for the usual."""
        return self._on_gpus is not None and self._on_gpus.takes(k, nprobe or self._nprobe)

    def parameters(self, nprobe: int = 0) -> Any:
        """What a search of the FAISS index goes by; None without lists."""
        return self._usual if nprobe in (0, self._nprobe) else self._new_parameters(nprobe)

    def _new_parameters(self, nprobe: int) -> Any:
        faiss, parameters = load_faiss(), None
        if self._nlist:
            # nprobe travels with the call. The index is shared: set on it, it would change a search
            # already running in another thread, and FAISS then fails with "Invalid key".
            lists = faiss.SearchParametersIVF(nprobe=min(nprobe, self._nlist))
            if isinstance(self._index, faiss.IndexPreTransform):
                parameters = faiss.SearchParametersPreTransform(index_params=lists)
            elif isinstance(self._index, faiss.IndexIVF):
                parameters = lists
        return parameters
