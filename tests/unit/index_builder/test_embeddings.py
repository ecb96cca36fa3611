"""The embed stage over pictures whose pixels encode their own number, so that rows can't change places unseen."""

import hashlib
import http.server
import io
import json
import shutil
import socket
import tarfile
import threading
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from index_builder import embeddings
from index_builder.embeddings import embed
from index_builder.encoding.clip import ClipEncoder
from index_builder.encoding.crop_encoding import CropEncoding
from spine.config import with_demo_models, write_config
from spine.errors import ConfigError, DataError
from spine.ids import content_id, laion_id
from spine.lists import LOOK_EVERY_S
from spine.run import Run, part_paths
from spine.settings import ClipConfig, Config, ListsConfig, PoolConfig
from spine.shards import read_shards
from spine.sources import read_bytes
from spine.table_files import read_parts
from spine.tables import METADATA, STATUSES
from spine.web import Web

CLIP = ClipConfig(model="demo", pretrained="", device="cpu", batch_size=16, workers=1)


def planted(number: int) -> Image.Image:
    """A picture that says its number: 12 bits as black and white squares, 4 x 3."""
    bits = np.array([(number >> bit) & 1 for bit in range(12)], dtype=np.uint8).reshape(3, 4)
    return Image.fromarray(np.kron(bits * 255, np.ones((20, 20), dtype=np.uint8))).convert("RGB")


def number_in(content: bytes) -> int:
    pixels = np.asarray(Image.open(io.BytesIO(content)).convert("L"))[10::20, 10::20]
    return sum(int(value > 128) << bit for bit, value in enumerate(pixels.reshape(-1)))


def png(number: int) -> bytes:
    kept = io.BytesIO()
    planted(number).save(kept, "PNG")
    return kept.getvalue()


def write_pictures(folder, numbers):
    folder.mkdir(exist_ok=True)
    for number in numbers:
        (folder / f"{number:04d}.png").write_bytes(png(number))
    return folder


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(embeddings, "SHARD_INPUTS", 16)


@pytest.fixture(scope="module")
def encoder():
    return ClipEncoder.load(CLIP)


@pytest.fixture
def new_run(tmp_path):
    def make(name="run"):
        run = Run(tmp_path / name)
        run.folder.mkdir()
        write_config(run.config, Config(clip=CLIP, score=with_demo_models(Config()).score))
        return run

    return make


def rows_of(run, collection="pool"):
    pairs = list(read_shards(run.collection(collection), METADATA))
    vectors = np.concatenate([pair[0] for pair in pairs])
    return vectors, pa.concat_tables([pair[1] for pair in pairs]).to_pylist()


def files_of(folder):
    return {
        path.relative_to(folder): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "manifest.json"
    }


class Heard:
    """A progress that keeps what it was told, and may stop the work."""

    def __init__(self, stop_after=None):
        self.units, self.failures, self.said, self.total, self.stop_after = 0, Counter(), [], None, stop_after

    def begin(self, stage, total, unit, done=0):
        self.units, self.total = done, total

    def advance(self, units, failures=None):
        self.units += units
        self.failures.update(failures or {})
        if self.stop_after is not None and self.units >= self.stop_after:
            raise KeyboardInterrupt

    def say(self, line):
        self.said.append(line)

    def end(self):
        pass


def test_ids_places_and_vectors_belong_together(tmp_path, new_run, encoder):
    source = write_pictures(tmp_path / "source", range(1, 41))
    run, heard = new_run(), Heard()

    manifest = embed(run, "pool", str(source), progress=heard)

    assert manifest.counts == {"inputs": 40, "embedded": 40, "duplicate": 0, "failed": 0}
    assert manifest.facts == {"d": 128, "model": "demo-clip", "demo_models": True, "source": str(source)} | {
        "vectors_given": False
    }
    assert (heard.units, heard.total) == (40, 40)
    vectors, rows = rows_of(run)
    assert [row["key"] for row in rows] == [f"{number:04d}" for number in range(1, 41)]
    for vector, row in zip(vectors, rows, strict=True):
        content = read_bytes(row["image_path"])
        number = number_in(content)
        assert (row["key"], row["id"]) == (f"{number:04d}", content_id(content))
        assert (row["width"], row["height"]) == (80, 60)
        alone = encoder.encode_images(encoder.preprocess(planted(number))[None])[0]
        assert np.abs(vector - alone).max() < 1e-3  # float16
        assert np.abs(np.linalg.norm(vector) - 1) < 1e-3
    distinct = np.unique(vectors.round(3), axis=0)
    assert len(distinct) == 40  # the model does tell them apart


def test_repeats_are_duplicates_of_the_first_across_shards(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", range(1, 31))
    (source / "9000.png").write_bytes(png(3))
    (source / "0000.png").write_bytes(png(7))
    run = new_run()

    counts = embed(run, "concepts", str(source)).counts

    assert counts == {"inputs": 32, "embedded": 30, "duplicate": 2, "failed": 0}
    statuses = {
        row["input"][-8:-4]: row for row in read_parts(run.concepts / "statuses", STATUSES).to_pylist()
    }
    assert [statuses[name]["status"] for name in ("0000", "0007", "0003", "9000")] == [
        "embedded",
        "duplicate",
        "embedded",
        "duplicate",
    ]
    assert statuses["9000"]["id"] == statuses["0003"]["id"] == content_id(png(3))


@pytest.mark.parametrize("stop_after", [1, 20, 32])
def test_a_stopped_run_goes_on_and_equals_an_unbroken_one(tmp_path, new_run, stop_after, monkeypatch):
    monkeypatch.setattr(embeddings, "_REPORT_EVERY", 4)
    source = write_pictures(tmp_path / "source", range(1, 46))
    for number in range(5):
        (source / f"9{number}.png").write_bytes(png(number + 10) if number % 2 else b"damaged")
    unbroken, broken = new_run("unbroken"), new_run("broken")
    wanted = embed(unbroken, "pool", str(source))

    with pytest.raises(KeyboardInterrupt):
        embed(broken, "pool", str(source), progress=Heard(stop_after))
    assert not (broken.pool / "manifest.json").exists()
    kept = {path: path.stat().st_mtime_ns for path in part_paths(broken.pool / "statuses")}
    assert len(kept) in (stop_after // 16, max(0, stop_after // 16 - 1))
    manifest = embed(broken, "pool", str(source))

    assert files_of(broken.pool) == files_of(unbroken.pool)
    assert (manifest.counts, manifest.digest) == (wanted.counts, wanted.digest)
    assert all(path.stat().st_mtime_ns == time for path, time in kept.items())


def test_half_written_shards_are_made_again(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", range(1, 46))
    run = new_run()
    embed(run, "pool", str(source))
    wanted = files_of(run.pool)
    (run.pool / "manifest.json").unlink()
    (run.pool / "statuses" / "part-00001.parquet").unlink()
    (run.pool / "img_emb" / "img_emb_00002.npy").unlink()

    embed(run, "pool", str(source))

    assert files_of(run.pool) == wanted


def test_a_second_run_does_nothing_and_a_new_picture_makes_it_stale(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", range(1, 5))
    run = new_run()
    first = embed(run, "pool", str(source))

    assert embed(run, "pool", str(source)) == first
    assert embed(run, "pool") == first  # it remembers the source
    (source / "new.png").write_bytes(png(99))
    assert embed(run, "pool").counts["embedded"] == 5
    assert embed(run, "pool", force=True).counts["embedded"] == 5


def test_a_webdataset_and_parquet_keep_captions_and_laions_ids(tmp_path, new_run):
    source = tmp_path / "source"
    source.mkdir()
    with tarfile.open(source / "0.tar", "w") as tar:
        for number in range(1, 4):
            notes = {"url": f"http://x/{number}", "caption": f"text {number}", "pwatermark": 0.5}
            for suffix, content in (("json", json.dumps(notes).encode()), ("png", png(number))):
                member = tarfile.TarInfo(f"{number:03d}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    run = new_run()

    counts = embed(run, "pool", str(source)).counts

    _, rows = rows_of(run)
    assert counts["embedded"] == 3
    assert [row["id"] for row in rows] == [laion_id(f"http://x/{n}", f"text {n}") for n in (1, 2, 3)]
    assert [number_in(read_bytes(row["image_path"])) for row in rows] == [1, 2, 3]
    assert (rows[0]["caption"], rows[0]["key"], rows[0]["pwatermark"]) == ("text 1", "001", 0.5)

    table = pa.table({"URL": ["http://x/1", None], "TEXT": ["text 1", "t"], "jpg": [png(8), png(9)]})
    pq.write_table(table, tmp_path / "p.parquet")
    embed(run, "concepts", str(tmp_path / "p.parquet"))
    _, rows = rows_of(run, "concepts")
    assert [row["id"] for row in rows] == [laion_id("http://x/1", "text 1"), content_id(png(9))]


@pytest.fixture(scope="module")
def site():
    """A web on loopback: /p/NUMBER is a planted picture; gives its address and how often each path was asked."""
    asked = Counter()

    class Site(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            asked[self.path] += 1
            kind, _, number = self.path.strip("/").partition("/")
            content = png(int(number)) if kind in ("p", "reserved") else b"no picture"
            if kind == "private":
                pytest.fail("robots.txt forbids it")
            if kind == "robots.txt":
                content = b"User-agent: *\nDisallow: /private\n"
            self.send_response(404 if kind == "gone" else 200)
            if kind == "reserved":
                self.send_header("X-Robots-Tag", "noai")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    thread.join()
    server.server_close()


def loopback(site):
    return Web(ports={int(site.rsplit(":", 1)[1])}, allow=("127.0.0.0/8",), timeout_s=10)


def test_addresses_are_downloaded_and_embedded_as_the_pictures_themselves(tmp_path, new_run, site):
    address, asked = site
    source = write_pictures(tmp_path / "source", range(1, 31))
    urls = [f"{address}/p/{number}" for number in range(1, 31)]
    urls[3], urls[10], urls[20] = f"{address}/gone/4", f"{address}/page/11", f"{address}/reserved/21"
    urls += [f"{address}/private/1", address.replace("127.0.0.1", "10.0.0.1"), "ftp://x/1", f"{address}/p/99"]
    blocked = tmp_path / "takedown.txt"
    blocked.write_text(f"{address}/p/99\n")
    pq.write_table(pa.table({"URL": urls, "TEXT": ["t"] * len(urls)}), tmp_path / "p.parquet")
    local, remote = new_run("local"), new_run("remote")
    write_config(remote.config, Config(clip=CLIP, lists=ListsConfig(takedown=(str(blocked),))))
    embed(local, "pool", str(source))

    with loopback(address) as web:
        manifest = embed(remote, "pool", str(tmp_path / "p.parquet"), web=web)

    assert manifest.counts == {
        "inputs": 34,
        "embedded": 27,
        "duplicate": 0,
        "failed": 7,
        "failed_bad_url": 1,
        "failed_gone": 1,
        "failed_not_an_image": 1,
        "failed_not_public": 1,
        "failed_opted_out": 2,
        "failed_takedown": 1,
    }
    assert asked["/robots.txt"] == 1 and asked["/p/99"] == 0
    wanted, ours = rows_of(local), rows_of(remote)
    by_hash = {row["sha256"]: vector for vector, row in zip(*wanted, strict=True)}
    for vector, row in zip(*ours, strict=True):
        assert np.array_equal(vector, by_hash[row["sha256"]])
        assert row["id"] == laion_id(row["url"], "t")
        assert row["sha256"] == hashlib.sha256(png(int(row["url"].rsplit("/", 1)[1]))).hexdigest()
        assert (row["image_path"], row["width"], row["height"]) == (None, 80, 60)
    assert [path.name for path in remote.folder.rglob("*.png")] == []  # nothing is kept


def test_a_local_picture_that_is_listed_meanwhile_is_not_opened_and_the_counts_add_up(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", range(1, 1001))
    run = new_run()
    hashes = run.folder / "hashes.txt"
    hashes.write_text(hashlib.sha256(png(2)).hexdigest())
    write_config(run.config, Config(clip=CLIP, lists=ListsConfig(hash_block=("hashes.txt",))))

    class Listing(Heard):
        """After the first pictures the list names another, and the stage waits until that can be known."""

        def advance(self, units, failures=None):
            if not self.units:
                hashes.write_text(
                    f"{hashlib.sha256(png(2)).hexdigest()}\n{hashlib.md5(png(900)).hexdigest()}"
                )
                time.sleep(LOOK_EVERY_S * 1.2)
            super().advance(units, failures)

    heard = Listing()
    manifest = embed(run, "pool", str(source), progress=heard)

    assert manifest.counts == {
        "inputs": 1000,
        "embedded": 998,
        "duplicate": 0,
        "failed": 2,
        "failed_hash_block": 2,
    }
    statuses = read_parts(run.pool / "statuses", STATUSES).to_pylist()
    refused = [row["input"] for row in statuses if row["reason"] == "hash_block"]
    assert refused == [str(source / "0002.png"), str(source / "0900.png")]
    assert heard.failures == {"hash_block": 2}


def test_pictures_at_hand_are_held_to_takedowns_by_id_address_and_domain(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", range(1, 4))
    urls = [
        f"https://{host}/{number}.png" for number, host in enumerate(("a.example", "b.example", "c.example"))
    ]
    columns = {"URL": urls, "TEXT": ["t"] * 3, "jpg": [png(number) for number in (11, 12, 13)]}
    pq.write_table(pa.table(columns), source / "rows.parquet")
    run = new_run()
    gone = [str(content_id(png(2))), urls[0], "b.example"]
    (run.folder / "gone.txt").write_text("\n".join(gone))
    write_config(run.config, Config(clip=CLIP, lists=ListsConfig(takedown=("gone.txt",))))

    folder = embed(run, "pool", str(source))
    shutil.rmtree(run.pool)
    table = embed(run, "pool", str(source / "rows.parquet"))

    assert (folder.counts["embedded"], folder.counts["failed_takedown"]) == (2, 1)
    assert (table.counts["embedded"], table.counts["failed_takedown"]) == (1, 2)
    assert [row["url"] for row in rows_of(run)[1]] == [urls[2]]


def test_a_list_that_becomes_unreadable_stops_embedding_which_then_goes_on(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", range(1, 1001))
    run = new_run()
    hashes = run.folder / "hashes.txt"
    hashes.write_text("")
    write_config(run.config, Config(clip=CLIP, lists=ListsConfig(hash_block=("hashes.txt",))))

    class Removing(Heard):
        def advance(self, units, failures=None):
            hashes.unlink(missing_ok=True)
            time.sleep(LOOK_EVERY_S * 1.2 if not self.units else 0)
            super().advance(units, failures)

    with pytest.raises(ConfigError, match=r"hashes\.txt: can't be read"):
        embed(run, "pool", str(source), progress=Removing())
    hashes.write_text("")
    assert embed(run, "pool", str(source)).counts["embedded"] == 1000


def test_with_downloads_off_addresses_are_counted_as_not_local(tmp_path, new_run):
    pq.write_table(pa.table({"URL": ["http://x/1", "http://x/2"]}), tmp_path / "p.parquet")
    run = new_run()
    write_config(run.config, Config(clip=CLIP, pool=PoolConfig(download=False)))

    with pytest.raises(DataError, match="none of 2 inputs .*not_local 2.*download = true"):
        embed(run, "pool", str(tmp_path / "p.parquet"))
    assert not (run.pool / "manifest.json").exists()


def test_stopping_does_not_wait_for_a_slow_host(tmp_path, new_run, site):
    address, _ = site
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()  # connects, and never answers
        urls = [f"{address}/p/{number}" for number in range(40)]
        urls[36] = f"http://127.0.0.1:{silent.getsockname()[1]}/p/1"
        pq.write_table(pa.table({"URL": urls}), tmp_path / "p.parquet")
        run = new_run()
        ports = {int(address.rsplit(":", 1)[1]), silent.getsockname()[1]}
        # Three attempts of so long would outlast the test's own limit.
        web = Web(ports=ports, allow=("127.0.0.0/8",), timeout_s=250)

        with web, pytest.raises(KeyboardInterrupt):
            embed(run, "pool", str(tmp_path / "p.parquet"), web=web, progress=Heard(stop_after=32))


def test_an_embedding_that_is_no_number_is_refused_with_all_its_copies(tmp_path, new_run, monkeypatch):
    source = write_pictures(tmp_path / "source", range(1, 5))
    (source / "9000.png").write_bytes(png(2))
    run, whole = new_run(), ClipEncoder.encode_images

    def broken_model(self, pixels, *, steady=False):
        vectors = whole(self, pixels, steady=steady)
        vectors[1] = np.nan
        return vectors

    monkeypatch.setattr(ClipEncoder, "encode_images", broken_model)

    counts = embed(run, "pool", str(source)).counts

    assert counts == {"inputs": 5, "embedded": 3, "duplicate": 0, "failed": 2, "failed_bad_embedding": 2}
    assert np.isfinite(rows_of(run)[0]).all()


def test_nothing_to_embed_is_one_clear_line(tmp_path, new_run):
    run = new_run()
    (tmp_path / "empty").mkdir()
    bad = tmp_path / "bad"
    bad.mkdir()
    (bad / "a.jpg").touch()

    for source, words in ((str(tmp_path / "empty"), "no pictures"), (None, r"\[pool\] source is empty")):
        with pytest.raises(DataError, match=words):
            embed(run, "pool", source)
    with pytest.raises(DataError, match="none of 1 inputs could be embedded .*empty_file 1"):
        embed(run, "pool", str(bad))
    with tarfile.open(tmp_path / "x.tar", "w"):
        pass
    with pytest.raises(DataError, match="no pictures in it"):
        embed(run, "pool", str(tmp_path / "x.tar"))


def test_all_kinds_of_source_give_the_same_vectors_and_ids(tmp_path, new_run):
    """Folders flat and deep with notes, tars plain and compressed, Parquet, stores, and given vectors."""
    numbers = range(1, 20)
    notes = {n: {"url": f"http://x/{n}", "caption": f" text {n}", "original_width": 80} for n in numbers}
    folder = write_pictures(tmp_path / "folder", numbers)
    for number in numbers:
        (folder / f"{number:04d}.json").write_text(json.dumps(notes[number]))
    for name, mode in (("plain.tar", "w"), ("packed.tar.gz", "w:gz")):
        with tarfile.open(tmp_path / name, mode) as tar:
            for path in sorted(folder.iterdir()):
                tar.add(path, path.name)
    columns = {
        "url": [notes[n]["url"] for n in numbers],
        "caption": [notes[n]["caption"] for n in numbers],
        "jpg": [png(n) for n in numbers],
    }
    pq.write_table(pa.table(columns), tmp_path / "p.parquet")
    for path in folder.iterdir():
        below = tmp_path / "deep" / path.name[:3] / "a" / "b"
        below.mkdir(parents=True, exist_ok=True)
        (below / path.name).write_bytes(path.read_bytes())
    runs = {}
    for name in ("folder", "deep", "plain.tar", "packed.tar.gz", "p.parquet"):
        runs[name] = new_run(f"run-{name}")
        embed(runs[name], "pool", str(tmp_path / name))
    for name in ("deep", "packed.tar.gz"):
        runs[f"store-{name}"] = new_run(f"run-store-{name}")
        embed(runs[f"store-{name}"], "pool", f"local://{tmp_path}/{name}")
    given = tmp_path / "given"
    (given / "img_emb").mkdir(parents=True)
    (given / "metadata").mkdir()
    np.save(given / "img_emb" / "img_emb_0.npy", rows_of(runs["folder"])[0].astype(np.float16))
    pq.write_table(
        pa.table({name: columns[name] for name in ("url", "caption")}),
        given / "metadata" / "metadata_0.parquet",
    )
    runs["given"] = new_run("run-given")
    embed(runs["given"], "pool", str(given))

    wanted, rows = rows_of(runs["folder"])
    assert [row["id"] for row in rows] == [laion_id(f"http://x/{n}", f" text {n}") for n in numbers]
    for name, run in runs.items():
        vectors, theirs = rows_of(run)
        assert np.array_equal(vectors, wanted), name
        assert [row["id"] for row in theirs] == [row["id"] for row in rows], name
        assert [row["caption"] or "" for row in theirs] == [row["caption"] for row in rows] or name == "given"


def downloaded(folder, notes, form):
    """What img2dataset leaves of these pictures: shards of files, tars or Parquet, its own table beside them."""
    folder.mkdir()
    for shard in (notes[:10], notes[10:]):
        name = f"{shard[0]['number'] // 10:05d}"
        rows = [
            {
                key: note[key]
                for key in ("url", "caption", "key", "width", "height", "original_width", "sha256")
            }
            | {"status": "success", "error_message": None, "exif": "{}"}
            for note in shard
        ]
        table = pa.Table.from_pylist(rows)
        (folder / f"{name}_stats.json").write_text(json.dumps({"count": len(shard)}))
        if form == "parquet":
            pictures = pa.array([png(note["number"]) for note in shard])
            pq.write_table(table.append_column("jpg", pictures), folder / f"{name}.parquet")
            continue
        pq.write_table(table, folder / f"{name}.parquet")
        files = folder / name
        files.mkdir()
        for note, row in zip(shard, rows, strict=True):
            (files / f"{note['key']}.jpg").write_bytes(png(note["number"]))
            (files / f"{note['key']}.txt").write_text(note["caption"])
            (files / f"{note['key']}.json").write_text(json.dumps(row))
        if form == "webdataset":
            with tarfile.open(folder / f"{name}.tar", "w") as tar:
                for path in sorted(files.iterdir()):
                    tar.add(path, path.name)
                    path.unlink()
            files.rmdir()
    return folder


def test_all_that_img2dataset_writes_is_the_addresses_themselves_downloaded(tmp_path, new_run, site):
    address, _ = site
    notes = [
        {
            "number": number,
            "key": f"{number:09d}",
            "url": f"{address}/p/{number}",
            "caption": f"text {number}",
            "width": 80,
            "height": 60,
            "original_width": 800,
            "sha256": hashlib.sha256(png(number)).hexdigest(),
        }
        for number in range(1, 20)
    ]
    columns = {name: [note[key] for note in notes] for name, key in (("URL", "url"), ("TEXT", "caption"))}
    pq.write_table(pa.table(columns), tmp_path / "addresses.parquet")
    fetched = new_run("fetched")
    with loopback(address) as web:
        embed(fetched, "pool", str(tmp_path / "addresses.parquet"), web=web)
    wanted, rows = rows_of(fetched)
    assert [row["id"] for row in rows] == [laion_id(note["url"], note["caption"]) for note in notes]

    for form in ("files", "webdataset", "parquet"):
        run = new_run(form)
        counts = embed(run, "pool", str(downloaded(tmp_path / f"{form}-output", notes, form))).counts

        assert counts == {"inputs": 19, "embedded": 19, "duplicate": 0, "failed": 0}, form
        vectors, theirs = rows_of(run)
        assert np.array_equal(vectors, wanted), form
        for name in ("id", "url", "caption", "sha256", "width", "height"):
            assert [row[name] for row in theirs] == [row[name] for row in rows], (form, name)
        assert [row["key"] for row in theirs] == [note["key"] for note in notes], form
        assert [number_in(read_bytes(row["image_path"])) for row in theirs] == list(range(1, 20)), form


def test_a_changed_source_costs_the_model_only_what_is_new(tmp_path, new_run, monkeypatch):
    source = write_pictures(tmp_path / "source", range(1, 46))
    run, fresh, heard = new_run("run"), new_run("fresh"), Heard(stop_after=32)
    embed(run, "pool", str(source))
    (source / "0003.png").unlink()
    (source / "0007.png").write_bytes(png(70))
    (source / "0000.png").write_bytes(png(20))  # the first of its kind is another now
    (source / "new.png").write_bytes(png(99))
    encoded, whole = [], CropEncoding.add
    monkeypatch.setattr(CropEncoding, "add", lambda self, crop: (encoded.append(1), whole(self, crop))[1])

    with pytest.raises(KeyboardInterrupt):
        embed(run, "pool", str(source), progress=heard)
    manifest = embed(run, "pool", str(source))

    assert len(encoded) == 2
    assert any("45 pictures were embedded before" in line for line in heard.said)
    wanted = embed(fresh, "pool", str(source))
    assert files_of(run.pool) == files_of(fresh.pool)
    assert manifest.digest == wanted.digest
    assert manifest.counts == {"inputs": 46, "embedded": 45, "duplicate": 1, "failed": 0}
    assert [path.name for path in run.folder.glob(".*")] == []
    encoded.clear()
    assert embed(run, "pool", str(source), force=True).digest == wanted.digest
    assert len(encoded) == 45  # --force takes nothing over


def test_several_devices_give_the_same_files_as_one(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", range(1, 41))
    one, two = new_run("one"), new_run("two")
    write_config(two.config, Config(clip=replace(CLIP, device="cpu,cpu")))
    embed(one, "pool", str(source))

    manifest = embed(two, "pool", str(source))

    assert manifest.counts["embedded"] == 40
    assert {path: content for path, content in files_of(two.pool).items() if path.name[0] != "."} == {
        path: content for path, content in files_of(one.pool).items() if path.name[0] != "."
    }


def test_one_picture_is_enough(tmp_path, new_run):
    source = write_pictures(tmp_path / "source", [5])

    assert embed(new_run(), "pool", str(source / "0005.png")).counts["embedded"] == 1
