"""A person's own photographs go the same way, on the demo models."""

import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from spine.manifest import read_manifest
from spine.table_files import read_table
from spine.tables import SELECTION
from tests.e2e.support import small_run


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """scikit-image's bundled pictures: photographs, scans, 16-bit, grey, with alpha."""
    import skimage

    folder = tmp_path_factory.mktemp("photographs")
    bundled = Path(skimage.__file__).parent / "data"
    for path in sorted(bundled.iterdir()):
        if path.suffix.lower() in (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif"):
            shutil.copy(path, folder / path.name)
    assert len(list(folder.iterdir())) >= 5
    return folder


def test_run_on_photographs_ends_with_a_release(photographs, popfactory, tmp_path):
    run = small_run(
        tmp_path / "run",
        photographs,
        photographs,
        centroids={"k": 3},
        filters={"min_side_px": 100, "pwatermark_max": None},
        select={"quota_per_centroid": 3},
    )
    done = popfactory("run", run.folder)
    assert done.returncode == 0, done.stderr

    release = run.release("pop", "1.0")
    table = pq.read_table(release / "dataset.parquet")
    assert 1 <= table.num_rows <= 9
    assert all(table["caption"].to_pylist())
    assert "demo models" in (release / "README.md").read_text().lower()
    counts = read_manifest(run.pool).counts
    assert counts["inputs"] == len(list(photographs.iterdir()))
    assert counts["inputs"] == counts["embedded"] + counts["duplicate"] + counts["failed"]


def test_embed_then_run_takes_the_folders_it_was_given(photographs, reference, popfactory, tmp_path):
    run = small_run(
        tmp_path / "run", "", "", centroids={"k": 2}, filters={"min_side_px": 100, "pwatermark_max": None}
    )
    first = popfactory("embed", run.folder, "concepts", reference / "images")
    second = popfactory("embed", run.folder, "pool", photographs)
    done = popfactory("run", run.folder)
    assert (first.returncode, second.returncode, done.returncode) == (0, 0, 0), (
        first.stderr,
        second.stderr,
        done.stderr,
    )
    assert pq.read_metadata(run.release("pop", "1.0") / "dataset.parquet").num_rows > 0


def test_an_empty_selection_is_an_error_that_prints_the_funnel(photographs, popfactory, tmp_path):
    run = small_run(
        tmp_path / "run", photographs, photographs, centroids={"k": 2}, filters={"min_side_px": 20_000}
    )
    done = popfactory("run", run.folder)
    assert done.returncode == 1
    assert "min_side_px" in done.stderr and "fetched" in done.stderr
    assert "Traceback" not in done.stderr
    rules = set(read_table(run.selection_table, SELECTION)["rule"].to_pylist())
    assert "min_side_px" in rules and "selected" not in rules


def test_real_models_without_weights_say_how_to_have_them(photographs, popfactory, tmp_path):
    from popfactory.settings_file import start_run

    start_run(tmp_path / "run", concepts=str(photographs), pool=str(photographs))
    done = popfactory("embed", tmp_path / "run", "concepts")
    assert done.returncode == 1
    assert "ViT-L-14" in done.stderr and "--demo-models" in done.stderr
    assert "Traceback" not in done.stderr
