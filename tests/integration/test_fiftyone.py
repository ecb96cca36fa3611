"""FiftyOne itself reads fiftyone.csv, as docs/release.md says how: in an environment of its own, where there is one."""

import json
import os
import re
import subprocess
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from curation.fetched_images import fetch
from curation.fiftyone import FIELDS
from curation.release import release
from curation.selection import select
from tests.integration.curation_runs import Planted, caption_all, local, number_in, plant, score_all

PYTHON = "POPFACTORY_FIFTYONE_PYTHON"
"""Environment variable: the interpreter of an environment with FiftyOne and its database."""

OWN = {"id", "filepath", "tags", "metadata", "created_at", "last_modified_at"}
"""Fields that every sample of FiftyOne has already."""

TOLD = """
samples = [sample.to_dict() for sample in dataset]
print(json.dumps([{name: sample.get(name) for name in ["filepath", *kinds]} for sample in samples]))
fo.delete_non_persistent_datasets()
"""


def test_no_column_has_a_name_that_fiftyone_gives_to_something_of_its_own():
    assert OWN.isdisjoint(FIELDS)


def test_fiftyone_imports_every_picture_with_its_values(tmp_path, root):
    python = os.environ.get(PYTHON)
    if not python:
        pytest.skip(f"FiftyOne isn't installed beside popfactory; name its interpreter in {PYTHON} to try it")
    pool = tmp_path / "pool, with a comma"
    run = plant(tmp_path / "run", [Planted(0, rank, local(pool, rank)) for rank in range(3)])
    fetch(run, depths=[3])
    score_all(run, violence={})
    select(run)
    caption_all(run, text='a "quoted",\nbroken é caption of {key}')
    release(run)
    folder = run.release("pop", "1.0")
    (said,) = re.findall(r"```python\n(import fiftyone.*?)```", (root / "docs/release.md").read_text(), re.S)
    script = tmp_path / "script.py"
    script.write_text("import json\n" + said.replace("RUN/release/pop-1.0", str(folder)) + TOLD)

    done = subprocess.run(
        [python, str(script)],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env={**os.environ, "FIFTYONE_DATABASE_DIR": str(tmp_path / "db"), "FIFTYONE_DO_NOT_TRACK": "1"},
    )

    assert done.returncode == 0, done.stderr[-2000:]
    samples = {each["picture_id"]: each for each in json.loads(done.stdout.splitlines()[-1])}
    rows = pq.read_table(folder / "dataset.parquet").to_pylist()
    assert samples.keys() == {row["id"] for row in rows} and len(rows) == 3
    for row in rows:
        sample = samples[row["id"]]
        assert str(number_in(Path(sample["filepath"]).read_bytes())) == row["key"]
        for name in set(FIELDS) - {"picture_id"}:
            wanted = pytest.approx(row[name]) if isinstance(row[name], float) else row[name]
            assert sample[name] == wanted, name
