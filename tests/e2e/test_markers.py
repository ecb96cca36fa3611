"""Pictures whose pixels say their own number: after the whole factory, each row is still its own picture."""

from io import BytesIO

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from spine.sources import read_bytes
from spine.table_files import read_parts
from spine.tables import IMAGES, NEIGHBOURS
from tests.e2e.support import small_run

BITS = 12


def _marked(number, generator):
    """A coloured picture with its number in a row of black and white squares, and in its caption."""
    pixels = np.empty((288, 288, 3), np.uint8)
    pixels[:] = generator.integers(0, 256, 3)
    top, left = generator.integers(40, 200, 2)
    pixels[top : top + 80, left : left + 80] = generator.integers(0, 256, 3)
    for bit in range(BITS):
        pixels[:24, bit * 24 : bit * 24 + 24] = 255 * (number >> bit & 1)
    return Image.fromarray(pixels)


def _number(content):
    row = np.asarray(Image.open(BytesIO(content)).convert("L"))[12]
    return sum(int(row[bit * 24 + 12] > 127) << bit for bit in range(BITS))


def test_ids_captions_and_files_belong_together(popfactory, tmp_path):
    generator = np.random.default_rng(0)
    for collection, numbers in (("concepts", range(40)), ("pool", range(1000, 1150))):
        (tmp_path / collection).mkdir()
        for number in generator.permutation(list(numbers)):
            path = tmp_path / collection / f"{generator.integers(1 << 40):x}.png"
            _marked(int(number), generator).save(path)
            path.with_suffix(".txt").write_text(f"number {number}")
    run = small_run(
        tmp_path / "run",
        tmp_path / "concepts",
        tmp_path / "pool",
        filters={"min_side_px": 0, "pwatermark_max": None},
        select={"near_duplicate": 2.0, "quota_per_centroid": 10},
    )
    done = popfactory("run", run.folder)
    assert done.returncode == 0, done.stderr

    rows = pq.read_table(run.release("pop", "1.0") / "dataset.parquet").to_pylist()
    assert len(rows) >= 30
    for row in rows:
        assert row["alt_txt"] == f"number {_number(read_bytes(row['image_path']))}"
    neighbours = read_parts(run.neighbours, NEIGHBOURS)
    captions = dict(zip(neighbours["id"].to_pylist(), neighbours["caption"].to_pylist(), strict=True))
    images = read_parts(run.images, IMAGES).to_pylist()
    assert images
    for row in images:
        assert captions[row["id"]] == f"number {_number(read_bytes(row['image_path']))}"
