import numpy as np
import pyarrow as pa
import pytest

from index_builder.metadata.metadata_rows import MetadataRows, write_metadata
from index_builder.metadata.predicates import Predicate, read_ids, rows_that_pass
from spine.errors import DataError
from spine.ids import laion_id
from spine.settings import AestheticMin, FiltersConfig

N = 1_003
NONE = FiltersConfig(min_side_px=0, pwatermark_max=None)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """Rows of LAION's names in several batches, some values unknown."""
    random = np.random.default_rng(0)
    table = pa.table(
        {
            "URL": [f"http://x/{row}" for row in range(N)],
            "TEXT": [None if row % 5 == 0 else f"picture {row}" for row in range(N)],
            "WIDTH": random.integers(100, 2_000, N).astype(np.float64),
            "HEIGHT": random.integers(100, 2_000, N).astype(np.float64),
            "pwatermark": pa.array(random.random(N), pa.float32(), mask=random.random(N) < 0.2),
            "punsafe": np.where(random.random(N) < 0.3, np.nan, random.random(N)),
            "aesthetic": pa.array(random.random(N) * 10, mask=random.random(N) < 0.1),
            "similarity": random.random(N),
            "LANGUAGE": [[None, "en", "de"][row % 3] for row in range(N)],
        }
    )
    folder = tmp_path_factory.mktemp("metadata")
    for number, start in enumerate((0, 401, 900)):
        write_metadata(folder / f"{number}.arrow", table.slice(start, (401, 499, 103)[number]))
    return MetadataRows.open(folder), table.to_pydict()


def known(values, name):
    return np.array([np.nan if value is None else value for value in values[name]], dtype=np.float64)


@pytest.mark.parametrize("unknown", ["keep", "drop"])
def test_each_condition_is_judged_by_itself_and_together(pool, unknown):
    rows, values = pool
    keep = unknown == "keep"
    side = np.minimum(known(values, "WIDTH"), known(values, "HEIGHT"))
    mark, unsafe, beauty = (known(values, name) for name in ("pwatermark", "punsafe", "aesthetic"))
    words = np.array([str(word) for word in values["LANGUAGE"]])
    cases = [
        (
            Predicate(filters=FiltersConfig(min_side_px=768, pwatermark_max=None, unknown=unknown)),
            side >= 768,
        ),
        (
            Predicate(filters=FiltersConfig(min_side_px=0, pwatermark_max=0.5, unknown=unknown)),
            np.where(np.isnan(mark), keep, mark <= np.float32(0.5)),
        ),
        (
            Predicate(
                filters=FiltersConfig(min_side_px=0, pwatermark_max=None, punsafe_max=0.25, unknown=unknown)
            ),
            np.where(np.isnan(unsafe), keep, unsafe <= 0.25),
        ),
        (
            Predicate(
                filters=FiltersConfig(
                    min_side_px=0, pwatermark_max=None, aesthetic_min=AestheticMin(value=5.0), unknown=unknown
                )
            ),
            np.where(np.isnan(beauty), keep, beauty.astype(np.float32) >= 5),
        ),
        (
            Predicate(
                filters=FiltersConfig(min_side_px=0, pwatermark_max=None, unknown=unknown), languages=("de",)
            ),
            np.where(words == "None", keep, words == "de"),
        ),
        (Predicate(alt_txt_similarity_min=0.3), known(values, "similarity").astype(np.float32) >= 0.3),
    ]

    for predicate, passes in cases:
        mask = rows_that_pass(rows, predicate)

        np.testing.assert_array_equal(mask.has(np.arange(N)), passes.astype(bool))
        assert mask.count == passes.sum() and 0 < mask.count < N
    together = Predicate(
        filters=FiltersConfig(
            min_side_px=768,
            pwatermark_max=0.5,
            punsafe_max=0.25,
            aesthetic_min=AestheticMin(value=5.0),
            unknown=unknown,
        ),
        languages=("de",),
        alt_txt_similarity_min=0.3,
    )
    everything = np.logical_and.reduce([passes.astype(bool) for _, passes in cases])
    np.testing.assert_array_equal(rows_that_pass(rows, together).has(np.arange(N)), everything)


def test_pictures_are_allowed_and_denied_by_the_ids_that_a_run_gives_them(pool):
    rows, values = pool
    ids = np.array([laion_id(url, text) for url, text in zip(values["URL"], values["TEXT"], strict=True)])

    allowed = rows_that_pass(rows, Predicate(allow=ids[[3, 500, 1_002]]))
    denied = rows_that_pass(rows, Predicate(deny=ids[::2]))
    neither = rows_that_pass(rows, Predicate(allow=ids[[3, 500]], deny=ids[[3]]))

    assert np.flatnonzero(allowed.has(np.arange(N))).tolist() == [3, 500, 1_002]
    assert np.flatnonzero(denied.has(np.arange(N))).tolist() == list(range(1, N, 2))
    assert np.flatnonzero(neither.has(np.arange(N))).tolist() == [500]
    assert rows_that_pass(rows, Predicate(allow=ids[:0])).count == 0


def test_nothing_asked_lets_everything_pass_and_what_a_pool_lacks_is_named(pool):
    rows, _ = pool

    assert Predicate().empty and rows_that_pass(rows, Predicate()).count == N
    predicate = Predicate(filters=FiltersConfig(min_side_px=5, pwatermark_max=0.1), languages=("en",))
    assert predicate.missing(["WIDTH", "height", "pwatermark"]) == ["language"]
    assert predicate.missing(rows.schema.names) == []


def test_predicates_differ_by_what_they_ask(pool):
    several = [
        Predicate(),
        Predicate(languages=("en",)),
        Predicate(allow=np.array([], dtype=np.int64)),
        Predicate(allow=np.array([4])),
        Predicate(deny=np.array([4])),
        Predicate(filters=FiltersConfig(min_side_px=1, pwatermark_max=None)),
    ]

    assert len({str(predicate.parameters()) for predicate in several}) == len(several)
    assert Predicate(deny=np.array([4, 9, 4])).parameters() == Predicate(deny=np.array([9, 4])).parameters()


def test_ids_are_read_from_text_and_npy(tmp_path):
    (tmp_path / "ids.txt").write_text("# mine\n7\n\n-3  # a remark\n7\n")
    np.save(tmp_path / "ids.npy", np.array([5, 5, 1]))

    assert read_ids(tmp_path / "ids.txt").tolist() == [-3, 7]
    assert read_ids(tmp_path / "ids.npy").tolist() == [1, 5]
    for content in ("1.5\n", "seven\n", "9" * 40 + "\n"):
        (tmp_path / "ids.txt").write_text(content)
        with pytest.raises(DataError, match="ids.txt: can't be read as ids"):
            read_ids(tmp_path / "ids.txt")
    np.save(tmp_path / "ids.npy", np.array([0.5]))
    with pytest.raises(DataError, match="a plain array of whole numbers"):
        read_ids(tmp_path / "ids.npy")
