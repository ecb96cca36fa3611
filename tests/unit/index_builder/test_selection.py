import numpy as np
import pytest

from index_builder.numerics.selection import best_first, thin_out


def selected(values, rows, k):
    values, rows = values.astype(np.float32), rows.astype(np.int64)
    best_first(values, rows, len(values), k)
    return values, rows


def drawn(kind, n, generator):
    rows = generator.permutation(n)
    if kind == "in no order":
        return generator.normal(size=n), rows
    if kind == "sorted":
        return np.arange(n), rows
    if kind == "sorted backwards":
        return -np.arange(n), rows
    if kind == "few values":
        return generator.integers(0, 3, n), rows
    return np.where(generator.random(n) < 0.5, -np.inf, 1), generator.integers(0, 3, n)


@pytest.mark.parametrize("kind", ["in no order", "sorted", "sorted backwards", "few values", "the same rows"])
@pytest.mark.parametrize("n", [1, 2, 3, 7, 119, 120, 961, 4096])
def test_the_best_come_first_and_the_worst_of_them_last(kind, n):
    generator = np.random.default_rng(n)
    for k in sorted({1, 2, n // 3, n // 2, n - 1, n} & set(range(1, n + 1))):
        given, numbers = drawn(kind, n, generator)
        expected = np.lexsort((numbers, -given))[:k]

        values, rows = selected(given, numbers, k)

        best = np.lexsort((rows[:k], -values[:k]))
        assert np.array_equal(values[:k][best], given[expected].astype(np.float32))
        assert np.array_equal(rows[:k][best], numbers[expected])
        assert (values[k - 1], rows[k - 1]) == (values[best[-1]], rows[best[-1]])
        assert sorted(rows) == sorted(numbers)  # and none is lost


def test_what_comes_after_the_count_stays_where_it_is():
    values, rows = np.arange(10, dtype=np.float32), np.arange(10)

    best_first(values, rows, 6, 2)

    assert sorted(values[:2]) == [4, 5]
    assert list(values[6:]) == [6, 7, 8, 9]
    assert list(rows[6:]) == [6, 7, 8, 9]


@pytest.mark.parametrize("kind", ["in no order", "sorted", "sorted backwards", "few values", "the same rows"])
@pytest.mark.parametrize("n", [1, 3, 33, 64, 961, 4096])
def test_what_is_left_out_is_none_of_the_best(kind, n):
    generator = np.random.default_rng(n)
    for k in sorted({1, 2, n // 3, n // 2, n - 1, n} & set(range(1, n + 1))):
        given, numbers = drawn(kind, n, generator)
        expected = np.lexsort((numbers, -given))[:k]
        values, rows = given.astype(np.float32), numbers.astype(np.int64)

        left, bar = thin_out(values, rows, n, k)

        assert k <= left <= k + (n - k) // 8
        assert (values[:left] >= bar).all()
        best = np.lexsort((rows[:left], -values[:left]))[:k]
        assert np.array_equal(values[best], given[expected].astype(np.float32))
        assert np.array_equal(rows[best], numbers[expected])
