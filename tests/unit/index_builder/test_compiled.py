import numba
import pytest

from index_builder.numerics.compiled import compiled, compiled_sums


@pytest.mark.parametrize("compile_", [compiled, compiled_sums])
def test_where_nothing_can_be_kept_a_function_is_compiled_all_the_same(compile_):
    """As in a read-only installation for a user without a folder: code from a text has no place beside it either."""
    names: dict = {}
    exec("def doubled(x):\n    return x + x\n", names)
    with pytest.raises(RuntimeError, match="no locator"):
        numba.njit(cache=True)(names["doubled"])
    assert compile_(names["doubled"])(21.0) == 42
