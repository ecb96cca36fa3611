"""Lets FAISS multiply matrices with the kernels its CPU has.

The FAISS wheel carries an OpenBLAS of 2021, which takes a newer CPU for an old one and falls back to
SSE: flat search and k-means then run at a quarter of their speed. OpenBLAS reads one environment
variable when it is loaded, so the choice must be made before FAISS is imported.
"""

import os
import platform
from collections.abc import Set
from pathlib import Path

VARIABLE = "OPENBLAS_CORETYPE"
"""What OpenBLAS reads its choice of kernels from."""

_AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}
_HASWELL = {"avx2", "fma"}


def choose_kernels() -> str | None:
    """Set OPENBLAS_CORETYPE for the FAISS that is imported next, unless the user has set it.

    Returns:
        What it is now; None where OpenBLAS is left to its own choice.
    """
    if VARIABLE not in os.environ:
        core_type = core_type_for(cpu_flags())
        if core_type is not None:
            os.environ[VARIABLE] = core_type
    return os.environ.get(VARIABLE)


def core_type_for(flags: Set[str]) -> str | None:
    """OpenBLAS's name of the best kernels that a CPU with these flags can run.

    Cooperlake would fit CPUs with BF16, but the OpenBLAS in FAISS doesn't know it and falls back to
    its slowest kernels.

    Args:
        flags: The CPU's features as Linux names them.

    Returns:
        "SkylakeX", "Haswell", or None where OpenBLAS knows better: an older or another CPU.
    """
    if flags >= _AVX512:
        return "SkylakeX"
    if flags >= _HASWELL:
        return "Haswell"
    return None


def cpu_flags() -> frozenset[str]:
    """Features of this machine's x86 CPU as Linux names them; empty on other systems and CPUs."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return frozenset()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return frozenset()
    flags = (line.partition(":")[2] for line in lines if line.startswith("flags"))
    return frozenset(next(flags, "").split())
