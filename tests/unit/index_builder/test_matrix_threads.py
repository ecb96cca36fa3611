import threading

import numpy as np
import pytest

from index_builder.numerics import matrix_threads
from index_builder.numerics.matrix_threads import one_matrix_thread


def test_products_have_one_thread_inside_and_their_own_number_after_the_last_is_out():
    library = matrix_threads._openblas()
    if library is None:
        pytest.skip("NumPy is built with another library here")
    get, put = library
    before = get()
    put(2)
    try:
        end = threading.Event()
        inside = threading.Event()

        def stay() -> None:
            with one_matrix_thread():
                inside.set()
                end.wait(30)

        other = threading.Thread(target=stay)
        other.start()
        assert inside.wait(30)
        with one_matrix_thread():
            assert get() == 1
            assert (np.ones((300, 300)) @ np.ones((300, 300)) == 300).all()
        assert get() == 1  # the other is inside still
        end.set()
        other.join()
        assert get() == 2
    finally:
        put(before)
