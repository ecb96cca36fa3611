"""The files of an index folder: FAISS's own, and the vectors beside it, opened and checked."""

import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from index_builder.numerics.faiss_library import load_faiss
from spine.errors import DataError

COPIES_BYTES = 256_000_000
"""Memory that copies which make a search faster may take by default: a graph's codes, RaBitQ's in blocks."""

INDEX_FILE = "image.index"
"""FAISS's file, or clip-retrieval's folder of one that stays on disk."""

VECTORS_FILE = "vectors.npy"
"""The vectors as float16, row by row, beside an index of coarse codes."""

METADATA_FOLDER = "metadata"
"""Row i belongs to vector i."""

_open_lock = threading.Lock()  # FAISS's limits on what a file may ask for are the process's


def read_index(path: Path, *, memory_map: bool) -> Any:
    """The FAISS index of a file, or of clip-retrieval's folder of one that stays on disk.

    Args:
        path: image.index.
        memory_map: Leave what can stay on disk there.

    Raises:
        DataError: It is missing, FAISS can't read it, or its metric is neither inner product nor L2.
    """
    faiss = load_faiss()
    if path.is_dir():
        file, flags = path / "populated.index", faiss.IO_FLAG_ONDISK_SAME_DIR
    else:
        file, flags = path, faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY if memory_map else 0
    # FAISS holds a table that product codes may want against the limit below, even where it makes none.
    flags |= faiss.IO_FLAG_SKIP_PRECOMPUTE_TABLE
    if not file.is_file():
        raise DataError(f"{file}: missing; an index folder holds {INDEX_FILE} and {METADATA_FOLDER}/")
    if not file.stat().st_size:
        raise DataError(f"{file}: empty, and an index was needed; build it again")
    with _open_lock:
        # No vector in the file is longer than the file: a damaged length is refused, not allocated.
        usual = faiss.get_deserialization_vector_byte_limit()
        faiss.set_deserialization_vector_byte_limit(file.stat().st_size + 1)
        try:
            index = faiss.read_index(str(file), flags)
        except (RuntimeError, MemoryError) as error:
            raise DataError(f"{file}: FAISS can't read it ({_first_line(error)}); build it again") from None
        finally:
            faiss.set_deserialization_vector_byte_limit(usual)
    if index.metric_type not in (faiss.METRIC_INNER_PRODUCT, faiss.METRIC_L2):
        raise DataError(f"{file}: metric {index.metric_type}; inner product or L2 was needed")
    lists = faiss.try_extract_index_ivf(index)
    if lists is not None:
        beside = [path.stat().st_size for path in file.parent.iterdir() if path.is_file()]
        _leave_to_the_page_cache(lists, sum(beside))
    codes = None if lists is None else faiss.downcast_index(lists)
    if index.metric_type == faiss.METRIC_L2 and isinstance(codes, faiss.IndexIVFPQ):
        codes.precompute_table()  # of use to L2 alone
    return index


def _leave_to_the_page_cache(lists: Any, size_bytes: int) -> None:
    """Start no threads to read ahead where memory holds what is read: 32 for each search, three times its own cost."""
    on_disk = load_faiss().downcast_InvertedLists(lists.invlists)
    if hasattr(on_disk, "prefetch_nthread") and size_bytes <= memory_bytes() // 2:
        on_disk.prefetch_nthread = 0


def memory_bytes() -> int:
    """What this machine has, or the part of it that a control group, such as a container's, leaves to this process.

    Where the system doesn't tell, none that files would stay in.
    """
    if not hasattr(os, "sysconf"):
        return 0
    return min(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *_group_limits())


def _group_limits(groups: Path = Path("/proc/self/cgroup"), root: Path = Path("/sys/fs/cgroup")) -> list[int]:
    """Bytes that this process's control groups, of version 1 or 2, and those above them allow."""
    found = []
    with suppress(OSError, ValueError):
        for line in groups.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            name = "memory/memory.limit_in_bytes" if controllers else "memory.max"
            top, name = (root / name).parent, Path(name).name
            # In a container the path may be that of the machine, and what counts lies at the top.
            place = top / path.lstrip("/")
            for group in (place, *place.parents):
                with suppress(OSError, ValueError):  # "max" is no limit
                    found.append(int((group / name).read_text(encoding="ascii")))
                if group == top:
                    break
    return found


def read_vectors(path: Path, index: Any) -> Any:
    """The float16 rows beside an index, memory-mapped; None where there are none.

    Args:
        path: vectors.npy.
        index: The FAISS index whose rows they are.

    Raises:
        DataError: The file is damaged, or its shape is not the index's.
    """
    if not path.is_file():
        return None
    try:
        vectors = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: can't be read ({error}); build the index again with --force") from None
    if vectors.shape != (index.ntotal, index.d):
        raise DataError(f"{path}: shape {vectors.shape}, {(index.ntotal, index.d)} was needed")
    return np.asarray(vectors)


def check_facts(folder: Path, index: Any, facts: Mapping[str, Any]) -> None:
    """See that the index has the n and d that its manifest says.

    Raises:
        DataError: It has not.
    """
    said = (facts.get("n"), facts.get("d"))
    if said != (index.ntotal, index.d):
        raise DataError(
            f"{folder}: n, d = {said} in its manifest, {(index.ntotal, index.d)} in {INDEX_FILE}; build it again"
        )


def scans_fast(index: Any) -> bool:
    """Whether its lists are of FAISS's fast-scan layout."""
    faiss = load_faiss()
    lists = faiss.try_extract_index_ivf(index)
    return lists is not None and isinstance(faiss.downcast_index(lists), faiss.IndexIVFFastScan)


def _first_line(error: BaseException) -> str:
    """What FAISS says, without the place in its sources that it begins with."""
    lines = str(error).splitlines()
    return lines[0].rpartition("Error: ")[2] if lines else type(error).__name__
