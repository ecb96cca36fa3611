import numpy as np

from index_builder.numerics.half_floats import widened


def test_every_finite_float16_becomes_the_same_number_as_float32():
    numbers = np.arange(2**16, dtype=np.uint16).view(np.float16)
    finite = numbers[np.isfinite(numbers)]
    assert len(finite) == 63_488

    wide = widened(finite)

    assert wide.dtype == np.float32
    np.testing.assert_array_equal(wide.view(np.uint32), finite.astype(np.float32).view(np.uint32))  # -0 too


def test_what_is_not_finite_has_no_unit_norm_afterwards():
    assert (np.abs(widened(np.array([np.nan, np.inf, -np.inf], dtype=np.float16))) >= 65_536).all()


def test_rows_apart_in_memory_are_widened_in_their_shape():
    stored = np.random.default_rng(0).standard_normal((40, 6)).astype(np.float16)
    np.testing.assert_array_equal(widened(stored[::3, 1:4]), stored[::3, 1:4].astype(np.float32))


def test_other_floats_stay_as_they_are():
    stored = np.ones((2, 3), dtype=np.float32)
    assert widened(stored) is stored
