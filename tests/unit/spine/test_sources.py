"""Real folders, tars and Parquet files, written here; each input must come out once, with its own bytes."""

import io
import json
import os
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from spine.errors import DataError, ImageError
from spine.ids import laion_id
from spine.places import shown_place
from spine.sources import Entry, entries, place_of, read_bytes, split_place, survey


def write_tar(path, members):
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def reason(place, **options):
    with pytest.raises(ImageError) as caught:
        read_bytes(place, **options)
    return caught.value.reason


@given(st.lists(st.binary(min_size=1).filter(lambda name: b"\x00" not in name), min_size=1, max_size=3))
def test_a_place_is_one_line_of_valid_text_and_gives_back_its_names(names):
    path, *parts = [os.fsdecode(name) for name in names]

    place = place_of("/" + path, *parts)

    assert split_place(place) == ("/" + path, tuple(parts))
    assert len(place.splitlines()) == 1
    place.encode("utf-8")


def test_plain_names_stay_readable():
    assert place_of("/data/Bär 1.jpg") == "/data/Bär 1.jpg"
    assert place_of("/data/0.tar", "a/b.jpg") == "/data/0.tar::a/b.jpg"
    assert place_of("/data/line\nbreak.jpg") == "file:///data/line%0Abreak.jpg"
    assert place_of("/data/two::colons.jpg") == "file:///data/two%3A%3Acolons.jpg"


def test_a_place_is_shown_elsewhere_without_folders_of_this_machine(tmp_path):
    inside = place_of(f"{tmp_path}/images/a.png")
    member = place_of("/data/00000.tar", "12.jpg")
    encoded = place_of("/data/line\nbreak.jpg")

    assert shown_place(inside, tmp_path) == "images/a.png"
    assert shown_place(f"{inside}: no such file: gone", tmp_path) == "images/a.png: no such file: gone"
    assert shown_place(member, tmp_path) == "00000.tar::12.jpg"
    assert split_place(shown_place(encoded, tmp_path)) == ("line\nbreak.jpg", ())
    for elsewhere in ("s3://bucket/0.tar::1.jpg", "https://example.org/a.jpg", "404: gone", ""):
        assert shown_place(elsewhere, tmp_path) == elsewhere


def test_a_folder_gives_every_picture_by_name_in_the_same_order(tmp_path):
    for name in ("b.JPG", "a.png", "deep/er/c.webp", "deep/notes.md", "deep/d.jpeg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(name.encode())

    found = list(entries(str(tmp_path)))

    assert [read_bytes(entry.place) for entry in found] == [
        b"a.png",
        b"b.JPG",
        b"deep/d.jpeg",
        b"deep/er/c.webp",
    ]
    assert [entry.key for entry in found] == ["a", "b", "deep/d", "deep/er/c"]
    assert survey(str(tmp_path)).total == 4


def test_names_that_are_hardly_names_are_read_all_the_same(tmp_path):
    names = [
        b"new\nline.jpg",
        b"not-utf8-\xff\xfe.jpg",
        b"a::b.jpg",
        b" space .jpg",
        b"%41.jpg",
        b'quote".jpg',
    ]
    for name in names:
        (tmp_path / os.fsdecode(name)).write_bytes(name)

    found = [entry.place for entry in entries(str(tmp_path))]

    assert sorted(read_bytes(place) for place in found) == sorted(names)
    assert len(set(found)) == len(names)
    pa.array(found).cast(pa.string())


def test_links_are_followed_once_and_loops_end(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "a.jpg").write_bytes(b"a")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to(tmp_path / "self")
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "nowhere.jpg").symlink_to(tmp_path / "gone.jpg")

    found = list(entries(str(tmp_path)))

    assert [entry.place for entry in found] == [f"{tmp_path}/nowhere.jpg", f"{tmp_path}/real/a.jpg"]
    assert reason(found[0].place) == "missing"


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "device.jpg").symlink_to("/dev/zero")
    (tmp_path / "empty.jpg").touch()
    (tmp_path / "large.jpg").write_bytes(b"x" * 101)

    assert [reason(entry.place, max_bytes=100) for entry in entries(str(tmp_path))] == [
        "unreadable",
        "empty_file",
        "too_many_bytes",
        "unreadable",
    ]
    assert reason(str(tmp_path / "none.jpg")) == "missing"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed_is_an_input_with_a_problem(tmp_path):
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "a.jpg").write_bytes(b"a")

    assert [entry.problem is None for entry in entries(str(tmp_path))] == [True, False]


def test_captions_and_notes_beside_a_picture_belong_to_it(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"a")
    (tmp_path / "a.txt").write_text("a cat\n")
    notes = {
        "url": "http://x/a",
        "caption": "other",
        "key": "0001",
        "width": 7,
        "height": 5.0,
        "similarity": 0.25,
    }
    (tmp_path / "a.json").write_text(
        json.dumps(notes | {"punsafe": float("nan"), "pwatermark": True, "extra": [1]})
    )
    (tmp_path / "b.jpg").write_bytes(b"b")
    (tmp_path / "b.json").write_text("[" * 100_000)
    (tmp_path / "c.jpg").write_bytes(b"c")
    (tmp_path / "c.json").write_text('{"caption": "half a pair \\ud800 and a null \\u0000"}')

    first, second, third = entries(str(tmp_path))

    assert first == Entry(
        place=str(tmp_path / "a.jpg"),
        url="http://x/a",
        web_id=laion_id("http://x/a", "other"),  # the source's own text: the .txt may have been edited
        caption="a cat",
        key="0001",
        width=7,
        height=5,
        alt_txt_similarity=0.25,
    )
    assert second == Entry(place=str(tmp_path / "b.jpg"), key="b")
    assert third.caption == "half a pair ? and a null"


def test_a_webdataset_tar_is_read_in_place(tmp_path):
    write_tar(
        tmp_path / "00000.tar",
        [
            ("0.txt", b"first"),
            ("0.jpg", b"picture 0"),
            ("0.json", b'{"url": "http://x/0"}'),
            ("1.jpg", b"picture 1"),
            ("1.pkl", b"never read"),
            ("deep/2.seg.png", b"picture 2"),
            ("1.jpg", b"picture 1 again"),
            ("odd\n\udcff.jpg", b"odd"),
            ("3.jpg", b""),
        ],
    )
    (tmp_path / "00000.parquet").write_bytes(b"img2dataset's own table; not read")

    found = list(entries(str(tmp_path)))

    assert [(entry.key, entry.caption, entry.url) for entry in found[:2]] == [
        ("0", "first", "http://x/0"),
        ("1", None, None),
    ]
    assert [read_bytes(entry.place) for entry in found[:5]] == [
        b"picture 0",
        b"picture 1",
        b"picture 2",
        b"picture 1 again",
        b"odd",
    ]
    assert reason(found[5].place) == "empty_file"
    assert found[0].place == f"{tmp_path}/00000.tar::0.jpg"
    assert reason(f"{tmp_path}/00000.tar::none.jpg") == "missing"
    assert reason(f"{tmp_path}/none.tar::0.jpg") == "missing"


def test_links_and_devices_in_a_tar_are_left_out(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        for kind, name in (
            (tarfile.SYMTYPE, "link.jpg"),
            (tarfile.LNKTYPE, "hard.jpg"),
            (tarfile.CHRTYPE, "dev.jpg"),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)

    assert list(entries(str(tmp_path / "x.tar"))) == []


def test_a_damaged_tar_gives_what_lies_before_the_damage_and_a_problem(tmp_path):
    write_tar(tmp_path / "x.tar", [(f"{number}.jpg", bytes([65 + number]) * 5000) for number in range(4)])
    content = (tmp_path / "x.tar").read_bytes()
    (tmp_path / "x.tar").write_bytes(content[:8000])
    (tmp_path / "y.tar").write_bytes(b"no tar at all" * 100)

    found = list(entries(str(tmp_path)))

    assert read_bytes(found[0].place) == b"A" * 5000
    assert [entry.problem is None for entry in found] == [True, True, False, False]
    assert reason(found[1].place) == "unreadable"


def test_parquet_with_bytes_gives_each_row_its_own(tmp_path):
    content = [b"row %d" % number for number in range(3000)]
    content[7] = None
    table = pa.table(
        {"caption": [f"caption {n}" for n in range(3000)], "image": pa.array(content), "WIDTH": [640] * 3000}
    )
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    nested = pa.table({"image": [{"path": "p", "bytes": b"in a struct"}, None]})
    pq.write_table(nested, tmp_path / "b.parquet")

    found = list(entries(str(tmp_path)))

    assert survey(str(tmp_path)).total == len(found) == 3002
    assert all(
        read_bytes(found[n].place) == b"row %d" % n and found[n].caption == f"caption {n}"
        for n in (0, 699, 700, 701, 2999)
    )
    assert (found[5].width, found[5].key) == (640, "a:5")
    assert reason(found[7].place) == "missing"
    assert read_bytes(found[3000].place) == b"in a struct"
    assert reason(found[3001].place) == "missing"
    assert reason(f"{tmp_path}/a.parquet::image::3000") == "missing"
    assert reason(f"{tmp_path}/a.parquet::none::1") == "missing"


def test_laion_metadata_gives_addresses_and_scores(tmp_path):
    table = pa.table(
        {
            "URL": ["http://x/a", None],
            "TEXT": ["alt", "lost"],
            "WIDTH": pa.array([800, 5], pa.int32()),
            "HEIGHT": pa.array([600, 5], pa.int32()),
            "similarity": [0.31, 0.3],
            "pwatermark": pa.array([0.25, None], pa.float32()),
            "punsafe": pa.array([0.5, None], pa.float32()),
            "aesthetic": pa.array([6.5, None], pa.float32()),
        }
    )
    pq.write_table(table, tmp_path / "part.parquet")

    first, second = entries(str(tmp_path / "part.parquet"))

    assert (first.place, first.url, first.caption, first.name) == (None, "http://x/a", "alt", "http://x/a")
    assert (first.width, first.height, first.alt_txt_similarity) == (800, 600, 0.31)
    assert (first.pwatermark, first.punsafe, first.aesthetic) == (0.25, 0.5, 6.5)
    assert (second.url, second.name) == (None, "part:1")


def test_damaged_parquet_and_parquet_without_pictures_are_problems(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 no")
    pq.write_table(pa.table({"x": [1]}), tmp_path / "b.parquet")

    first, second = entries(str(tmp_path))

    assert "damaged" in first.problem
    assert "no column with pictures" in second.problem


def test_a_source_that_cannot_be_one_is_said_in_one_line(tmp_path):
    (tmp_path / "notes.txt").touch()

    for source, words in (
        ("", "no source"),
        (str(tmp_path / "none"), "No such file"),
        (str(tmp_path), "no pictures"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            entries(source)
        assert "\n" not in str(caught.value)


def test_the_digest_notices_files_that_come_go_or_change(tmp_path):
    def digest():
        return survey(str(tmp_path)).digest

    (tmp_path / "a.jpg").write_bytes(b"a")
    first = digest()
    assert digest() == first
    (tmp_path / "b.jpg").write_bytes(b"b")
    second = digest()
    os.utime(tmp_path / "b.jpg", (1, 1))
    third = digest()
    (tmp_path / "b.jpg").rename(tmp_path / "c.jpg")
    assert len({first, second, third, digest()}) == 4


def test_laions_key_is_of_the_texts_as_they_stand(tmp_path):
    long = "word " * 20_000  # more than is kept of a caption
    texts = [" two spaces  ", "", None, long, "null \x00 inside"]
    table = pa.table({"url": [f"http://x/{n}" for n in range(5)], "text": texts})
    pq.write_table(table, tmp_path / "p.parquet")

    found = list(entries(str(tmp_path / "p.parquet")))

    assert [entry.web_id for entry in found] == [
        laion_id(f"http://x/{n}", text) for n, text in enumerate(texts)
    ]
    assert found[0].caption == "two spaces"


def webdataset(path, mode, names=("0", "1", "2")):
    """Each sample a picture, a text and notes; and something that is none of these."""
    with tarfile.open(path, mode) as tar:
        for name in names:
            notes = json.dumps({"url": f"http://x/{name}", "caption": f"text {name}"}).encode()
            for suffix, content in (("jpg", f"picture {name}".encode()), ("txt", b"t"), ("json", notes)):
                member = tarfile.TarInfo(f"{name}.{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


def test_a_compressed_tar_gives_what_a_plain_one_gives(tmp_path):
    plain = list(entries(str(webdataset(tmp_path / "a.tar", "w", names=("0", "1", "1")))))
    for name in ("a.tar.gz", "b.tgz"):
        path = webdataset(tmp_path / name, "w:gz", names=("0", "1", "1"))

        packed = list(entries(str(path)))

        assert [entry.content for entry in packed] == [b"picture 0", b"picture 1", b"picture 1"]
        assert [read_bytes(entry.place) for entry in packed] == [entry.content for entry in packed]
        assert [entry.place for entry in packed] == [
            entry.place.replace(str(tmp_path / "a.tar"), str(path)) for entry in plain
        ]
        assert [(each.url, each.web_id, each.caption, each.key) for each in packed] == [
            (each.url, each.web_id, each.caption, each.key) for each in plain
        ]


def test_a_damaged_compressed_tar_gives_what_lies_before_the_damage(tmp_path):
    path = webdataset(tmp_path / "a.tar.gz", "w:gz", names=[str(number) for number in range(400)])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    found = list(entries(str(path)))

    good = [entry for entry in found if entry.problem is None]
    assert 20 < len(good) < 399
    assert [entry.content for entry in good] == [f"picture {n}".encode() for n in range(len(good))]
    assert "damaged" in found[-1].problem and len(found) == len(good) + 1
    assert reason(f"{path}::399.jpg") == "unreadable"
    assert reason(f"{path}::none.jpg") == "unreadable"
    path.write_bytes(whole)
    assert reason(f"{path}::none.jpg") == "missing"


def test_a_store_gives_what_the_same_folder_here_gives(tmp_path):
    folder = tmp_path / "source"
    (folder / "deep").mkdir(parents=True)
    webdataset(folder / "0.tar", "w")
    webdataset(folder / "1.tar.gz", "w:gz", names=("7",))
    (folder / "deep" / "a.jpg").write_bytes(b"a")
    (folder / "deep" / "a.txt").write_text("a cat")
    here, there = list(entries(str(folder))), list(entries(f"local://{folder}"))

    assert [entry.place for entry in there] == [f"local://{entry.place}" for entry in here]
    assert [read_bytes(entry.place) for entry in there] == [read_bytes(entry.place) for entry in here]
    assert [(each.url, each.web_id, each.caption) for each in there] == [
        (each.url, each.web_id, each.caption) for each in here
    ]
    before = survey(f"local://{folder}").digest
    assert survey(f"local://{folder}").digest == before
    os.utime(folder / "0.tar", (1, 1))
    assert survey(f"local://{folder}").digest != before
    assert reason(f"local://{folder}/0.tar::9.jpg") == "missing"
    assert reason(f"local://{folder}/gone.jpg") == "missing"
    assert reason(f"local://{folder}/deep/a.jpg", max_bytes=0) == "too_many_bytes"


def test_parquet_in_a_store_is_read_in_place(tmp_path):
    table = pa.table({"url": ["http://x/1", "http://x/2"], "jpg": [b"one", b"two"]})
    pq.write_table(table, tmp_path / "p.parquet", row_group_size=1)

    found = list(entries(f"local://{tmp_path}/p.parquet"))

    assert [read_bytes(entry.place) for entry in found] == [b"one", b"two"]
    assert [entry.place for entry in found] == [f"local://{tmp_path}/p.parquet::jpg::{row}" for row in (0, 1)]
    assert survey(f"local://{tmp_path}/p.parquet").total == 2


def test_stores_that_cannot_be_read_are_one_clear_line(tmp_path):
    for source, words in (
        (f"local://{tmp_path}/gone", "can't be listed"),
        (f"local://{tmp_path}::zip://x", "chains stores"),
        ("gs://bucket/x", r"pip install 'popfactory\[gs\]'"),
    ):
        with pytest.raises(DataError, match=words) as caught:
            survey(source)
        assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="No such file"):  # no store that is known: a path
        survey("ftp://x/y")
