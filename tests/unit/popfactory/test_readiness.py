"""What the settings name and isn't there ends a run before its first stage."""

from dataclasses import replace

import pytest
from PIL import Image

from popfactory.pipeline import run_pipeline
from popfactory.settings_file import start_run
from spine.config import load_config, write_config
from spine.errors import FactoryError
from spine.run import Run
from spine.settings import AestheticQuery


@pytest.fixture
def run(tmp_path):
    (tmp_path / "pictures").mkdir()
    Image.new("RGB", (300, 300), "red").save(tmp_path / "pictures" / "a.png")
    pictures = str(tmp_path / "pictures")
    start_run(tmp_path / "run", concepts=pictures, pool=pictures, demo_models=True)
    return Run(tmp_path / "run")


@pytest.mark.parametrize(
    ("table", "settings", "words"),
    [
        ("concepts", {"source": "/gone"}, r"\[concepts\] source = '/gone': no such"),
        ("pool", {"source": "/gone"}, r"\[pool\] source = '/gone': no such"),
        ("pool", {"source": ""}, r"\[pool\] source is empty"),
        ("pool", {"source": "", "index": "/gone"}, r"\[pool\] index = '/gone': no such"),
        ("lists", {"takedown": ("gone.txt",)}, r"\[lists\] .*gone\.txt"),
        ("score", {"aesthetic_head": "/gone.npz"}, r"/gone\.npz: .*\[score\] aesthetic_head"),
        ("retrieve", {"aesthetic_query": AestheticQuery(weight=0.5)}, r"rating9\.npy"),
    ],
)
def test_what_is_named_and_missing_stops_a_run_before_any_work(run, table, settings, words):
    config = load_config(run.config)
    if table == "retrieve":
        config = replace(config, score=replace(config.score, aesthetic_query_vectors=""))
    write_config(run.config, replace(config, **{table: replace(getattr(config, table), **settings)}))

    with pytest.raises(FactoryError, match=words):
        run_pipeline(run)
    assert not run.concepts.exists()
