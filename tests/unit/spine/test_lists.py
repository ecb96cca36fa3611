import hashlib

import numpy as np
import pyarrow as pa
import pytest

from spine.config import write_config
from spine.errors import ConfigError
from spine.lists import BlockLists, ListsInForce
from spine.run import Run
from spine.settings import Config, ListsConfig


def test_ids_addresses_domains_and_hashes_block(tmp_path):
    digest = hashlib.sha256(b"picture").hexdigest()
    (tmp_path / "takedown.txt").write_text(
        "# asked for in May\n-17\nhttp://a.example/1.jpg?x=1\nbad.example\n\n"
    )
    (tmp_path / "hashes.txt").write_text(digest.upper() + "\n")
    lists = BlockLists.load(ListsConfig(takedown=("takedown.txt",), hash_block=("hashes.txt",)), tmp_path)

    assert lists.blocks(picture_id=-17) == "takedown"
    assert lists.blocks(picture_id=17) is None
    assert lists.blocks(url="http://a.example/1.jpg?x=1") == "takedown"
    assert lists.blocks(url="http://a.example/2.jpg") is None
    assert lists.blocks(url="https://cdn.BAD.example:8080/2.jpg") == "takedown"
    assert lists.blocks(url="https://notbad.example/2.jpg") is None
    assert lists.blocks(sha256=digest) == "hash_block"


@pytest.mark.parametrize(
    ("url", "rule"),
    [
        ("https://bad.example", "takedown"),
        ("https://a.BAD.example./x/y", "takedown"),
        ("http://bad.example?next=/fine.example/", "takedown"),
        ("http://bad.example:8080/a//b", "takedown"),
        ("http://user@bad.example/", "takedown"),
        ("http://notbad.example/", None),
        ("http://fine.example/http://bad.example/", None),
        ("http://fine.example#/bad.example", None),
        ("http://[bad.example/", None),
        ("bad.example/no-address", None),
    ],
)
def test_a_domain_is_that_of_the_host_whatever_stands_around_it(tmp_path, url, rule):
    (tmp_path / "takedown.txt").write_text("bad.example\n")
    lists = BlockLists.load(ListsConfig(takedown=("takedown.txt",)), tmp_path)
    assert lists.blocks(url=url) == rule


def test_the_digest_follows_the_entries_and_not_their_order(tmp_path):
    (tmp_path / "a.txt").write_text("1\n2\n")
    (tmp_path / "b.txt").write_text("# note\n2\n1\n")
    (tmp_path / "c.txt").write_text("1\n")
    digests = [BlockLists.load(ListsConfig(takedown=(f"{name}.txt",)), tmp_path).digest for name in "abc"]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(("name", "content"), [("takedown", "no entry at all\n"), ("hash_block", "abc\n")])
def test_a_line_that_is_no_entry_stops_the_work(tmp_path, name, content):
    (tmp_path / "list.txt").write_text(content)
    with pytest.raises(ConfigError, match="line 1"):
        BlockLists.load(ListsConfig(**{name: ("list.txt",)}), tmp_path)


def test_a_list_that_cannot_be_read_stops_the_work(tmp_path):
    with pytest.raises(ConfigError, match="nothing goes on without its lists"):
        BlockLists.load(ListsConfig(takedown=("missing.txt",)), tmp_path)


def test_hashes_of_bytes_addresses_and_looks_block(tmp_path):
    picture, url = b"picture", "http://a.example/1.jpg"
    look = "0f" * 32
    md5, sha256 = hashlib.md5(picture).hexdigest(), hashlib.sha256(picture).hexdigest()
    entries = [md5, f"SHA256:{sha256}", f"url:{hashlib.md5(url.encode()).hexdigest()}", f"pdq: {look}"]
    (tmp_path / "hashes.txt").write_text("\n".join(entries))
    lists = BlockLists.load(ListsConfig(hash_block=("hashes.txt",)), tmp_path)

    assert lists.blocks(md5=md5) == lists.blocks(sha256=sha256) == lists.blocks(url=url) == "hash_block"
    assert lists.blocks(url=url + "?") is None
    for bits, rule in ((0, "hash_block"), (31, "hash_block"), (32, None)):
        near = f"{int(look, 16) ^ ((1 << bits) - 1):064x}"
        assert lists.blocks(pdq=near) == rule
        assert lists.blocks(pdq=f"{'ff' * 32} {near}") == rule
    assert lists.blocks(picture_id=1, url="http://b.example", sha256="0" * 64, md5="0" * 32) is None
    assert not lists.empty
    assert BlockLists.load(ListsConfig(), tmp_path).empty


def test_the_lists_in_force_are_those_of_each_look_and_an_unreadable_one_blocks_until_it_is_read(tmp_path):
    run = Run(tmp_path)
    write_config(run.config, Config())
    in_force = ListsInForce(run)
    assert in_force.now().empty

    (tmp_path / "gone.txt").write_text("12\n")
    write_config(run.config, Config(lists=ListsConfig(takedown=("gone.txt",))))
    assert in_force.now().blocks(picture_id=12) == "takedown"
    (tmp_path / "gone.txt").write_text("12\n13\n")
    assert in_force.now().blocks(picture_id=13) == "takedown"
    assert in_force.now() is in_force.now(), "nothing is read again where nothing changed"
    (tmp_path / "gone.txt").rename(tmp_path / "moved.txt")
    for _ in range(2):
        with pytest.raises(ConfigError, match="gone.txt: can't be read"):
            in_force.now()
    (tmp_path / "moved.txt").rename(tmp_path / "gone.txt")
    assert in_force.now().blocks(picture_id=13) == "takedown"


def test_the_kind_of_a_hash_is_part_of_the_digest(tmp_path):
    digests = set()
    for kind in ("", "pdq:", "url:"):
        (tmp_path / "list.txt").write_text(kind + "0f" * 32)
        digests.add(BlockLists.load(ListsConfig(hash_block=("list.txt",)), tmp_path).digest)
    assert len(digests) == 3


@pytest.mark.parametrize(
    "entry", ["md5:" + "0" * 64, "pdq:" + "0" * 32, "sha1:" + "0" * 40, "url:http://a.example"]
)
def test_a_hash_of_a_wrong_length_or_kind_stops_the_work(tmp_path, entry):
    (tmp_path / "list.txt").write_text(entry)
    with pytest.raises(ConfigError, match="line 1"):
        BlockLists.load(ListsConfig(hash_block=("list.txt",)), tmp_path)


def test_many_pictures_at_once_are_judged_as_one_by_one(tmp_path):
    random = np.random.default_rng(4)
    listed = [random.bytes(32) for _ in range(600)]

    def look(content: bytes, differing: int) -> str:
        bits = np.unpackbits(np.frombuffer(content, np.uint8))
        bits[random.choice(256, differing, replace=False)] ^= 1
        return np.packbits(bits).tobytes().hex()

    hashes = [*(f"pdq:{each.hex()}" for each in listed), "sha256:" + "ab" * 32]
    (tmp_path / "hashes.txt").write_text("\n".join(hashes))
    (tmp_path / "takedown.txt").write_text("7\nbad.example\n")
    lists = BlockLists.load(ListsConfig(takedown=("takedown.txt",), hash_block=("hashes.txt",)), tmp_path)
    turned = [random.bytes(32).hex() for _ in range(7)]
    looks = [
        " ".join([*turned, look(listed[row], differing)])
        for row, differing in enumerate([0, 1, 30, 31, 32, 60])
    ]
    pictures = pa.table(
        {
            "id": pa.array(range(1, 11), pa.int64()),
            "url": ["http://bad.example/1", None, None, "http://fine.example", *[None] * 6],
            "sha256": ["ab" * 32, "ab" * 32, *[None] * 8],
            "md5": pa.nulls(10, pa.string()),
            "pdq": [None, None, None, *looks, None],
        }
    )

    rules = lists.blocks_all(pictures)

    assert rules == ["takedown", "hash_block", None, *["hash_block"] * 3, "takedown", None, None, None]
    one_by_one = [
        lists.blocks(picture_id=row.pop("id"), **{name: row[name] for name in row})
        for row in pictures.to_pylist()
    ]
    assert rules == one_by_one
    assert BlockLists.load(ListsConfig(), tmp_path).blocks_all(pictures) == [None] * 10
