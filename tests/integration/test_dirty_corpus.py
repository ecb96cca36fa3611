"""A folder of everything that people's folders hold: each input gets one right status, and the counts add up."""

import io
import os
import stat
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from PIL import Image

from index_builder.embeddings import embed
from spine.config import write_config
from spine.run import Run
from spine.settings import ClipConfig, Config
from spine.shards import read_shards
from spine.sources import read_bytes, split_place
from spine.table_files import read_parts
from spine.tables import METADATA, STATUSES

CLIP = ClipConfig(model="demo", pretrained="", device="cpu", batch_size=16, workers=2)


def encoded(image, kind, **options):
    kept = io.BytesIO()
    image.save(kept, kind, **options)
    return kept.getvalue()


def noise(seed, size=(120, 90), mode="RGB"):
    pixels = np.random.default_rng(seed).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size).convert(mode)


def bomb(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    rows = zlib.compress(b"\x00" * (width // 8 + 1) * min(height, 1000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(noise(7), "JPEG", exif=exif)


def palette_with_alpha():
    image = noise(5).quantize(16)
    return encoded(image, "PNG", transparency=3)


def corpus():
    """Name to content and the status it must get, with the reason of a failure."""
    jpeg = encoded(noise(0), "JPEG")
    grey16 = Image.fromarray(np.linspace(0, 65535, 64 * 64).astype(np.uint16).reshape(64, 64))
    frames = [noise(20), noise(21)]
    good = {
        b"plain.jpg": jpeg,
        b"cmyk.jpg": encoded(noise(1, mode="CMYK"), "JPEG"),
        b"sixteen.png": encoded(grey16, "PNG"),
        b"float.tif": encoded(Image.fromarray(np.asarray(grey16, np.float32)), "TIFF"),
        b"palette.png": palette_with_alpha(),
        b"alpha.webp": encoded(noise(6, mode="RGBA"), "WEBP"),
        b"moving.gif": encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]),
        b"rotated.jpg": rotated(),
        b"bilevel.tiff": encoded(noise(8, mode="1"), "TIFF"),
        b"grey.bmp": encoded(noise(9, mode="L"), "BMP"),
        b"tiny.png": encoded(noise(10, (1, 1)), "PNG"),
        b"strip.png": encoded(noise(11, (3000, 2)), "PNG"),
        b"really-a-png.jpg": encoded(noise(12), "PNG"),
        b"new\nline.jpg": encoded(noise(13), "JPEG"),
        b"not-utf8-\xff\xfe.png": encoded(noise(14), "PNG"),
        b"two::colons.png": encoded(noise(15), "PNG"),
        b"UPPER.JPEG": encoded(noise(16), "JPEG"),
        b"deep/er/still/\xe7\x8c\xab.png": encoded(noise(17), "PNG"),
    }
    bad = {
        b"empty.jpg": (b"", "empty_file"),
        b"half.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        b"half.png": (encoded(noise(3, (300, 300)), "PNG")[:-300], "truncated"),
        b"bomb.png": (bomb(50_000, 50_000), "too_many_pixels"),
        b"small-bomb.png": (bomb(9_000, 9_000), "too_many_pixels"),
        b"letter.jpg": (b"Dear sir or madam", "not_an_image"),
        b"page.png": (b"<!doctype html><title>404</title>", "not_an_image"),
        b"phone.heic": (b"\x00\x00\x00\x18ftypheic" + b"\x00" * 50, "unsupported_format"),
        b"drawing.jpg": (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unsupported_format"),
    }
    found = {name: (content, "embedded", None) for name, content in good.items()}
    found |= {name: (content, "failed", reason) for name, (content, reason) in bad.items()}
    found[b"zz-copy.jpg"] = (jpeg, "duplicate", None)
    return found


@pytest.fixture
def dirty(tmp_path):
    """The folder, and name to the (status, reason) it must get."""
    folder = tmp_path / "dirty"
    wanted = {}
    for name, (content, status, reason) in corpus().items():
        path = folder / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        wanted[os.fsdecode(name)] = (status, reason)
    (folder / "loop").symlink_to(folder)
    (folder / "deep" / "up").symlink_to(folder / "deep")
    (folder / "dangling.jpg").symlink_to(folder / "nowhere.jpg")
    wanted["dangling.jpg"] = ("failed", "missing")
    os.mkfifo(folder / "pipe.jpg")
    wanted["pipe.jpg"] = ("failed", "unreadable")
    (folder / "huge.jpg").touch()
    os.truncate(folder / "huge.jpg", 60_000_000)  # a hole: takes no space
    wanted["huge.jpg"] = ("failed", "too_many_bytes")
    for name in ("notes.txt", "Thumbs.db", "plain.json", ".DS_Store"):
        (folder / name).write_bytes(b"\xff\x00 no input")
    if os.geteuid() != 0:  # root may read everything
        (folder / "closed.jpg").write_bytes(encoded(noise(30), "JPEG"))
        (folder / "closed.jpg").chmod(0)
        wanted["closed.jpg"] = ("failed", "unreadable")
    return folder, wanted


def test_every_input_of_a_dirty_folder_has_its_one_right_status(tmp_path, dirty):
    folder, wanted = dirty
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_config(run.config, Config(clip=CLIP))

    manifest = embed(run, "pool", str(folder))

    statuses = read_parts(run.pool / "statuses", STATUSES).to_pylist()
    got = {
        os.path.relpath(split_place(row["input"])[0], folder): (row["status"], row["reason"])
        for row in statuses
    }
    assert got == wanted
    assert len(statuses) == len(got)
    expected = Counter(status for status, _ in wanted.values())
    reasons = Counter(f"failed_{reason}" for _, reason in wanted.values() if reason)
    assert manifest.counts == {"inputs": len(wanted)} | dict(expected) | dict(reasons)
    assert all(row["message"] for row in statuses if row["status"] == "failed")
    assert all(row["id"] is not None for row in statuses if row["status"] != "failed")


def test_what_was_embedded_of_it_is_found_again_by_its_place(tmp_path, dirty):
    folder, wanted = dirty
    run = Run(tmp_path / "run")
    run.folder.mkdir()
    write_config(run.config, Config(clip=CLIP))
    embed(run, "pool", str(folder))

    vectors, rows = next(iter(read_shards(run.pool, METADATA)))

    good = corpus()
    assert len(rows) == sum(status == "embedded" for status, _ in wanted.values())
    for row in rows.to_pylist():
        name = os.path.relpath(split_place(row["image_path"])[0], folder)
        assert read_bytes(row["image_path"]) == good[os.fsencode(name)][0]
        if name == "rotated.jpg":
            assert (row["width"], row["height"]) == (90, 120)
    assert np.isfinite(vectors).all()
    assert not [path for path in run.folder.rglob("*") if stat.S_ISFIFO(path.stat().st_mode)]
