import base64
import hashlib
import io

import pytest
from PIL import Image

from retrieval_server.inlined_pictures import MAX_PICTURES, InlinedPictures
from spine.lists import BlockLists
from spine.settings import ListsConfig

NO_LISTS = BlockLists(frozenset(), frozenset(), frozenset(), frozenset(), "")


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deep").mkdir(parents=True)
    Image.new("RGBA", (30, 20), (200, 30, 30, 255)).save(folder / "deep" / "red.png")
    Image.new("RGB", (10, 10), (0, 0, 200)).save(tmp_path / "secret.png")
    return folder


def test_a_picture_below_the_folder_comes_as_jpeg(pictures):
    for path in (str(pictures / "deep" / "red.png"), "deep/red.png"):
        record = {"image_path": path, "caption": "red"}
        InlinedPictures(pictures).add_to([record], NO_LISTS)
        picture = Image.open(io.BytesIO(base64.b64decode(record["image"])))
        assert (picture.format, picture.size) == ("JPEG", (30, 20))
        assert all(abs(a - b) < 8 for a, b in zip(picture.getpixel((5, 5)), (200, 30, 30), strict=True))


def test_no_other_file_of_the_machine_comes_out(pictures, tmp_path):
    (pictures / "link.png").symlink_to(tmp_path / "secret.png")
    (pictures / "circle").symlink_to(pictures / "circle")
    (pictures / "words.txt").write_text("words")
    outside = [
        str(tmp_path / "secret.png"),
        "../secret.png",
        "deep/../../secret.png",
        "link.png",
        "/etc/passwd",
        "circle",
        "deep",
        "words.txt",
        "missing.png",
        "",
        "\0",
        "x" * 5000,
        None,
        7,
    ]
    records = [{"image_path": path} for path in outside] + [{"caption": "no path at all"}]
    InlinedPictures(pictures).add_to(records, NO_LISTS)
    assert not any("image" in record for record in records)


def test_a_folder_beside_of_a_longer_name_is_not_below(pictures, tmp_path):
    beside = tmp_path / "pictures-private"
    beside.mkdir()
    Image.new("RGB", (10, 10)).save(beside / "a.png")
    assert InlinedPictures(pictures).jpeg(str(beside / "a.png"), NO_LISTS) is None


def test_one_answer_carries_a_bounded_number_of_pictures(pictures):
    records = [{"image_path": "deep/red.png"} for _ in range(MAX_PICTURES + 2)]
    InlinedPictures(pictures).add_to(records, NO_LISTS)
    assert sum("image" in record for record in records) == MAX_PICTURES
    assert "image" not in records[-1]


def test_a_picture_on_a_hash_list_is_not_shown(pictures, tmp_path):
    content = (pictures / "deep" / "red.png").read_bytes()
    for digest in (hashlib.sha256(content).hexdigest(), hashlib.md5(content).hexdigest().upper()):
        (tmp_path / "hashes.txt").write_text(f"{digest}\n")
        lists = BlockLists.load(ListsConfig(hash_block=("hashes.txt",)), tmp_path)
        assert InlinedPictures(pictures).jpeg("deep/red.png", lists) is None
