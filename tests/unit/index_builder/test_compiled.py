import os
import subprocess
import sys
from pathlib import Path

import numba
import pytest

import index_builder
from index_builder.numerics.compiled import cache_folder, compiled, compiled_sums


@pytest.mark.parametrize("compile_", [compiled, compiled_sums])
def test_where_nothing_can_be_kept_a_function_is_compiled_all_the_same(compile_):
    """As in a read-only installation for a user without a folder: code from a text has no place beside it either."""
    names: dict = {}
    exec("def doubled(x):\n    return x + x\n", names)
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(names["doubled"])
    assert compile_(names["doubled"])(21.0) == 42


CALLED = """
import sys
from pathlib import Path
import numba
from index_builder.numerics.compiled import cache_folder, compiled
numba.config.CACHE_DIR = str(cache_folder(Path("."), ""))
sys.path.insert(0, ".")
from caller import calls
print(calls(2))
"""


def test_what_is_called_in_another_file_may_change(tmp_path):
    (tmp_path / "caller.py").write_text(
        "from called import called\nfrom index_builder.numerics.compiled import compiled\n"
        "@compiled\ndef calls(x):\n    return called(x)\n"
    )
    found = []
    for factor in (10, 300, 10):
        (tmp_path / "called.py").write_text(
            "from index_builder.numerics.compiled import compiled\n"
            f"@compiled\ndef called(x):\n    return {factor} * x\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", CALLED],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(Path(index_builder.__file__).parents[1])},
            capture_output=True,
            text=True,
            check=True,
        )
        found.append(done.stdout.strip())

    assert found == ["20", "600", "20"]
    assert len(list((tmp_path / "__pycache__").glob("kernels-*"))) == 2


def test_the_users_own_folder_for_what_is_compiled_is_kept_to(tmp_path):
    assert cache_folder(tmp_path, str(tmp_path / "mine")).parent == tmp_path / "mine"
    assert Path(numba.config.CACHE_DIR).name.startswith("kernels-")
