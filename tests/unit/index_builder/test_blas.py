import os
import subprocess
import sys

import pytest

from index_builder.numerics.blas import VARIABLE, choose_kernels, core_type_for, cpu_flags

AVX2 = frozenset({"sse2", "avx", "avx2", "fma"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}


@pytest.mark.parametrize(
    ("flags", "core_type"),
    [
        (AVX512 | {"avx512_bf16"}, "SkylakeX"),
        (AVX2 | {"avx512f"}, "Haswell"),  # not all of the AVX-512 that those kernels use
        (AVX2, "Haswell"),
        (frozenset({"sse2", "avx"}), None),
        (frozenset(), None),
    ],
)
def test_kernels_are_the_best_that_the_cpu_can_run(flags, core_type):
    assert core_type_for(flags) == core_type


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv(VARIABLE, "Barcelona")

    assert choose_kernels() == "Barcelona"


def test_loading_faiss_sets_the_kernels_of_this_cpu_first():
    code = "import os; from index_builder.numerics.faiss_library import load_faiss; load_faiss(); "
    code += "print(os.environ.get('%s'))"
    code %= VARIABLE
    environment = {key: value for key, value in os.environ.items() if key != VARIABLE}

    printed = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )

    assert printed.stdout.strip() == str(core_type_for(cpu_flags()))


def test_importing_index_builder_modules_does_not_load_faiss():
    code = "import sys, index_builder.indexing.index_folder; print('faiss' in sys.modules)"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert printed.stdout.strip() == "False"
