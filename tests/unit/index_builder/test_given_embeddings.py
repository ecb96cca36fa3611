"""Embeddings that somebody gives: their rows must stay with their vectors, and nothing is opened."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from index_builder import embeddings
from index_builder.embeddings import embed
from index_builder.encoding.clip import ClipEncoder
from index_builder.sources import given_embeddings
from index_builder.sources.given_embeddings import unit_where_needed
from spine.config import write_config
from spine.errors import DataError
from spine.ids import laion_id
from spine.manifest import verify
from spine.run import Run
from spine.settings import ClipConfig, Config
from spine.shards import read_shards
from spine.table_files import read_parts
from spine.tables import METADATA, STATUSES

D = 128


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(given_embeddings, "SHARD_ROWS", 8)
    monkeypatch.setattr(embeddings, "SHARD_ROWS", 8)


@pytest.fixture
def no_model(monkeypatch):
    """A CLIP model that is loaded all the same is an error."""
    monkeypatch.setattr(ClipEncoder, "load", lambda config: pytest.fail("a model was loaded"))


@pytest.fixture
def new_run(tmp_path):
    def make(name="run", **clip):
        run = Run(tmp_path / name)
        run.folder.mkdir()
        settings = {"model": "demo", "pretrained": "", "device": "cpu", "workers": 1, "batch_size": 16} | clip
        write_config(run.config, Config(clip=ClipConfig(**settings)))
        return run

    return make


def unit(rows, d=D, seed=0):
    vectors = np.random.default_rng(seed).standard_normal((rows, d)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def write_inference(folder, sizes, d=D, row_group_size=3):
    """clip-retrieval's inference: vector i of file f is drawn with its row, whose caption says both."""
    for name in ("img_emb", "metadata"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number, size in enumerate(sizes):
        np.save(folder / "img_emb" / f"img_emb_{number}.npy", unit(size, d, seed=number).astype(np.float16))
        rows = {
            "image_path": [f"{number:05d}{row:04d}" for row in range(size)],
            "caption": [f"{number}:{row}" for row in range(size)],
            "url": [f"http://x/{number}/{row}" for row in range(size)],
            "original_width": [1000 + row for row in range(size)],
        }
        path = folder / "metadata" / f"metadata_{number}.parquet"
        pq.write_table(pa.table(rows), path, row_group_size=row_group_size)
    return folder


def write_datacomp(folder, sizes, d=768):
    folder.mkdir(exist_ok=True)
    for number, size in enumerate(sizes):
        wanted, other = unit(size, d, seed=number), unit(size, 512, seed=99)
        np.savez(
            folder / f"{number:032x}.npz",
            b32_img=other.astype(np.float16),
            l14_img=wanted.astype(np.float16),
            l14_txt=unit(size, d, seed=77).astype(np.float16),
        )
        rows = {
            "uid": [f"{row:032x}" for row in range(size)],
            "url": [f"http://x/{number}/{row}" for row in range(size)],
            "text": [f"{number}:{row}" for row in range(size)],
            "original_width": [640] * size,
            "original_height": [480] * size,
            "sha256": ["ab" * 32] * size,
        }
        pq.write_table(pa.table(rows), folder / f"{number:032x}.parquet")
    return folder


def rows_of(run, collection="pool"):
    pairs = list(read_shards(run.collection(collection), METADATA))
    return np.concatenate([pair[0] for pair in pairs]), pa.concat_tables(
        [pair[1] for pair in pairs]
    ).to_pylist()


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


class Stopper:
    """A progress that stops the work after so many rows."""

    def __init__(self, after=None):
        self.after, self.units, self.total = after, 0, None

    def begin(self, stage, total, unit, done=0):
        self.units, self.total = done, total

    def advance(self, units, failures=None):
        self.units += units
        if self.after is not None and self.units >= self.after:
            raise KeyboardInterrupt

    def say(self, line):
        pass

    def end(self):
        pass


def test_an_inference_folder_keeps_each_row_with_its_vector(tmp_path, new_run, no_model):
    source = write_inference(tmp_path / "source", [20, 5, 11])
    run, heard = new_run(), Stopper()

    manifest = embed(run, "pool", str(source), progress=heard)

    assert manifest.counts == {"inputs": 36, "embedded": 36, "duplicate": 0, "failed": 0}
    assert manifest.facts == {
        "d": D,
        "model": "demo-clip",
        "demo_models": True,
        "source": str(source),
        "vectors_given": True,
    }
    assert (heard.units, heard.total) == (36, 36)
    vectors, rows = rows_of(run)
    for vector, row in zip(vectors, rows, strict=True):
        number, place = map(int, row["caption"].split(":"))
        stored = np.load(source / "img_emb" / f"img_emb_{number}.npy")[place]
        assert np.array_equal(vector.astype(np.float16), stored)  # to the last bit
        assert row["id"] == laion_id(f"http://x/{number}/{place}", row["caption"])
        assert (row["width"], row["key"], row["image_path"]) == (
            1000 + place,
            f"{number:05d}{place:04d}",
            None,
        )
    assert verify(run.pool) == []
    assert embed(run, "pool") == manifest


def test_datacomps_metadata_is_a_pool_of_openais_vectors(tmp_path, new_run, no_model):
    source = write_datacomp(tmp_path / "source", [9, 4])
    run = new_run(model="ViT-L-14", pretrained="openai")

    manifest = embed(run, "concepts", str(source))

    assert (manifest.facts["d"], manifest.facts["model"]) == (768, "ViT-L-14/openai")
    vectors, rows = rows_of(run, "concepts")
    assert len(rows) == 13
    for vector, row in zip(vectors, rows, strict=True):
        number, place = map(int, row["caption"].split(":"))
        assert np.array_equal(vector, np.load(source / f"{number:032x}.npz")["l14_img"][place])
        assert (row["key"], row["width"], row["sha256"]) == (f"{place:032x}", 640, "ab" * 32)
    (source / "alone.npz").write_bytes((source / f"{0:032x}.npz").read_bytes())
    with pytest.raises(DataError, match="alone.npz: no .*alone.parquet belongs to it"):
        embed(run, "concepts", str(source))
    with pytest.raises(DataError, match="OpenAI's ViT-L-14 and ViT-B-32, .clip. names demo"):
        embed(new_run("other"), "pool", str(source))


def test_the_same_vectors_in_datacomps_files_and_in_an_inference_folder_are_the_same_pool(
    tmp_path, new_run, no_model
):
    sizes, pools = [9, 4], []
    for write in (write_inference, write_datacomp):
        run = new_run(write.__name__, model="ViT-L-14", pretrained="openai")
        embed(run, "pool", str(write(tmp_path / f"of-{write.__name__}", sizes, d=768)))
        pools.append(rows_of(run))

    (vectors, rows), (others, their_rows) = pools
    assert np.array_equal(vectors, others) and vectors.shape == (13, 768)
    for name in ("id", "url", "caption"):
        assert [row[name] for row in rows] == [row[name] for row in their_rows]


@pytest.mark.parametrize("after", [1, 16, 21, 30])
def test_a_stopped_run_goes_on_and_equals_an_unbroken_one(tmp_path, new_run, after):
    source = write_inference(tmp_path / "source", [20, 5, 11])
    unbroken, broken = new_run("unbroken"), new_run("broken")
    wanted = embed(unbroken, "pool", str(source))

    with pytest.raises(KeyboardInterrupt):
        embed(broken, "pool", str(source), progress=Stopper(after))
    assert not (broken.pool / "manifest.json").exists()
    manifest = embed(broken, "pool", str(source))

    assert files_of(broken.pool) == files_of(unbroken.pool)
    assert manifest.digest == wanted.digest


def test_rows_that_are_no_vectors_repeats_and_nameless_rows_are_counted(tmp_path, new_run):
    source = write_inference(tmp_path / "source", [20])
    path = source / "img_emb" / "img_emb_0.npy"
    vectors = np.load(path).astype(np.float32)
    vectors[3], vectors[4, 7], vectors[5, 0] = 0, np.nan, np.inf
    vectors[6] *= 50  # not of norm 1
    np.save(path, vectors)
    table = pq.read_table(source / "metadata" / "metadata_0.parquet").to_pylist()
    table[19] |= {name: table[0][name] for name in ("url", "caption")}
    table[2] |= {"url": None, "image_path": None}
    pq.write_table(pa.Table.from_pylist(table), source / "metadata" / "metadata_0.parquet")
    run = new_run()

    counts = embed(run, "pool", str(source)).counts

    assert counts == {
        "inputs": 20,
        "embedded": 15,
        "duplicate": 1,
        "failed": 4,
        "failed_bad_embedding": 3,
        "failed_missing": 1,
    }
    statuses = read_parts(run.pool / "statuses", STATUSES).to_pylist()
    assert [row["status"] for row in statuses].count("embedded") == 15
    assert (statuses[19]["status"], statuses[19]["id"]) == ("duplicate", statuses[0]["id"])
    assert statuses[3]["message"].startswith(f"{path}::3: the vector is of zeros")
    kept, rows = rows_of(run)
    scaled = kept[[row["caption"] for row in rows].index("0:6")]
    assert np.abs(scaled - vectors[6] / np.linalg.norm(vectors[6])).max() < 1e-3
    assert np.linalg.norm(kept, axis=1) == pytest.approx(np.ones(15), abs=1e-3)


def test_files_that_do_not_belong_together_are_refused_with_one_line(tmp_path, new_run):
    run = new_run()
    source = write_inference(tmp_path / "a", [6, 7])
    metadata = source / "metadata" / "metadata_1.parquet"
    whole = pq.read_table(metadata)
    pq.write_table(whole.slice(0, 6), metadata)

    with pytest.raises(
        DataError, match=r"img_emb_1.npy has 7 vectors, .*metadata_1.parquet 6 rows"
    ) as caught:
        embed(run, "pool", str(source))
    assert "\n" not in str(caught.value)
    metadata.unlink()
    with pytest.raises(DataError, match="img_emb_1.npy: no .*metadata_1.parquet belongs to it"):
        embed(run, "pool", str(source))
    pq.write_table(whole, metadata)
    (source / "img_emb" / "img_emb_0.npy").unlink()
    with pytest.raises(DataError, match=r"metadata_0.parquet: no vectors in .*img_emb belong to it"):
        embed(run, "pool", str(source))
    np.save(source / "img_emb" / "img_emb_0.npy", unit(6, 64))
    with pytest.raises(DataError, match="img_emb_1.npy: d = 128, .*img_emb_0.npy has d = 64"):
        embed(run, "pool", str(source))
    with pytest.raises(DataError, match="vectors of d = 64, demo-clip makes d = 128"):
        embed(run, "pool", str(write_inference(tmp_path / "b", [5], d=64)))
    nameless = write_inference(tmp_path / "c", [4])
    pq.write_table(pa.table({"text": ["a"] * 4}), nameless / "metadata" / "metadata_0.parquet")
    with pytest.raises(DataError, match="none of url, image_url, sha256, image_path"):
        embed(run, "pool", str(nameless))


def test_what_is_no_array_of_rows_is_refused(tmp_path, new_run):
    source = write_inference(tmp_path / "source", [4])
    path = source / "img_emb" / "img_emb_0.npy"
    bad = {
        "object": lambda: np.save(path, np.array([[1, "a"]] * 4, dtype=object), allow_pickle=True),
        r"shape \(512,\)": lambda: np.save(path, np.zeros(512, np.float32)),
        "int64": lambda: np.save(path, np.zeros((4, D), np.int64)),
        "by columns": lambda: np.save(path, np.asfortranarray(unit(4))),
        "magic": lambda: path.write_bytes(b"not an array"),
    }
    for words, spoil in bad.items():
        spoil()
        with pytest.raises(DataError, match=f"img_emb_0.npy: no rows of float.*{words}"):
            embed(new_run(words[:3].strip("\\")), "pool", str(source))


def test_a_file_that_ends_early_is_named(tmp_path, new_run):
    source = write_inference(tmp_path / "source", [20])
    path = source / "img_emb" / "img_emb_0.npy"
    path.write_bytes(path.read_bytes()[:-300])

    with pytest.raises(DataError, match="img_emb_0.npy with .*ends after 18 of 20 vectors"):
        embed(new_run(), "pool", str(source))


def test_a_store_gives_what_the_same_folder_here_gives(tmp_path, new_run):
    source = write_inference(tmp_path / "source", [20, 5])
    pairs = write_datacomp(tmp_path / "datacomp", [9, 4])
    for name, folder, clip in (
        ("a", source, {}),
        ("b", pairs, {"model": "ViT-L-14", "pretrained": "openai"}),
    ):
        here, there = new_run(f"{name}-here", **clip), new_run(f"{name}-there", **clip)
        embed(here, "pool", str(folder))

        manifest = embed(there, "pool", f"local://{folder}")

        assert manifest.facts["source"] == f"local://{folder}"
        assert np.array_equal(rows_of(there)[0], rows_of(here)[0])
        assert rows_of(there)[1] == rows_of(here)[1]
        assert embed(there, "pool") == manifest


def test_another_runs_collection_is_taken_if_it_is_of_the_same_model(tmp_path, new_run, no_model):
    first, second = new_run("first"), new_run("second")
    embed(first, "pool", str(write_inference(tmp_path / "source", [20])))

    embed(second, "concepts", str(first.pool))

    assert np.array_equal(rows_of(second, "concepts")[0], rows_of(first)[0])
    assert rows_of(second, "concepts")[1] == rows_of(first)[1]
    other = new_run("other", model="ViT-B-32", pretrained="openai")
    with pytest.raises(DataError, match="embeddings of demo-clip, .clip. names ViT-B-32/openai"):
        embed(other, "pool", str(first.pool))


def test_unit_vectors_stay_to_the_last_bit_and_others_are_scaled():
    vectors = np.vstack([unit(3).astype(np.float16), 7 * unit(2), np.zeros((1, D)), np.full((1, D), 1e30)])
    vectors = vectors.astype(np.float32)

    scaled, good = unit_where_needed(vectors)

    assert good.tolist() == [True] * 5 + [False, True]
    assert np.array_equal(scaled[:3], vectors[:3])
    assert np.linalg.norm(scaled[good], axis=1) == pytest.approx(np.ones(6), abs=1e-3)
