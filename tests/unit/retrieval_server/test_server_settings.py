import json
from pathlib import Path

import pytest

from retrieval_server.settings import DEFAULT_COLUMNS, IndexSettings, load_indices_paths, settings_for_run
from spine.config import preset, with_demo_models, write_config
from spine.errors import ConfigError, DataError
from spine.run import Run
from spine.settings import ClipConfig, Config, PoolConfig, ScoreConfig
from tests.integration.server_index import LAION5B_ENTRY


def write(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "indices_paths.json"
    path.write_text(json.dumps(content))
    return path


def test_a_plain_string_is_a_folder_with_clip_retrievals_defaults(tmp_path):
    (tmp_path / "index").mkdir()
    settings = load_indices_paths(write(tmp_path, {"pool": str(tmp_path / "index")}))
    assert settings.indices == (
        IndexSettings(
            name="pool",
            folder=tmp_path / "index",
            clip=ClipConfig(model="ViT-B-32", pretrained="openai"),
            memory_map=False,
            columns=DEFAULT_COLUMNS,
        ),
    )


def test_options_do_not_leak_from_one_index_to_the_next(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = {
        "indice_folder": str(tmp_path / "a"),
        "columns_to_return": ["url"],
        "enable_faiss_memory_mapping": True,
        "clip_model": "ViT-L/14",
        "use_arrow": True,
    }
    settings = load_indices_paths(write(tmp_path, {"a": first, "b": str(tmp_path / "b")}))
    assert settings.indices[0].columns == ("url",)
    assert settings.indices[0].clip == ClipConfig(model="ViT-L-14", pretrained="openai")
    assert settings.indices[1].columns == DEFAULT_COLUMNS
    assert settings.indices[1].memory_map is False
    assert settings.indices[1].clip == ClipConfig(model="ViT-B-32", pretrained="openai")


def test_every_key_of_clip_retrieval_is_taken(tmp_path):
    (tmp_path / "laion").mkdir()
    entry = LAION5B_ENTRY | {
        "indice_folder": str(tmp_path / "laion"),
        "clip_model": "open_clip:ViT-H-14",
        "use_jit": False,
        "provide_violence_detector": True,
        "provide_aesthetic_embeddings": False,
    }
    [index] = load_indices_paths(write(tmp_path, {"laion5B-H-14": entry})).indices
    assert index.clip == ClipConfig(model="ViT-H-14", pretrained="laion2b_s32b_b79k")
    assert (index.memory_map, index.columns) == (True, ("url", "caption"))


def test_a_relative_folder_is_looked_for_beside_the_file(tmp_path):
    (tmp_path / "nearby").mkdir()
    assert load_indices_paths(write(tmp_path, {"a": "nearby"})).indices[0].folder == tmp_path / "nearby"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "NAME"),
        ({}, "one name at least"),
        ({"a": 5}, "'a': a folder or an object"),
        ({"a": "no/such/folder"}, "'a': there is no folder no/such/folder"),
        ({"a": {}}, "'a': no indice_folder"),
        ({"a": {"indice_folder": 5}}, "indice_folder is 5"),
        ({"a": {"indice_folder": ".", "use_arrow": "yes"}}, "use_arrow is 'yes'"),
        ({"a": {"indice_folder": ".", "columns_to_return": "url"}}, "columns_to_return is 'url'"),
        ({"a": {"indice_folder": ".", "clip_model": "ViT-Q"}}, "clip_model 'ViT-Q' is unknown"),
    ],
)
def test_a_wrong_file_is_one_line_that_says_where(tmp_path, content, words):
    with pytest.raises(ConfigError, match=words) as caught:
        load_indices_paths(write(tmp_path, content))
    assert str(tmp_path / "indices_paths.json") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_or_broken_file_is_one_line(tmp_path):
    with pytest.raises(ConfigError, match="missing"):
        load_indices_paths(tmp_path / "none.json")
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ConfigError, match="JSON"):
        load_indices_paths(tmp_path / "broken.json")


def make_run(folder: Path, config: Config) -> Run:
    folder.mkdir()
    run = Run(folder)
    write_config(run.config, config)
    return run


def test_a_runs_index_has_the_runs_name_and_models(tmp_path):
    run = make_run(tmp_path / "pop-1", with_demo_models(preset("standard")))
    run.index.mkdir()
    [index] = settings_for_run(run).indices
    assert (index.name, index.folder, index.columns) == ("pop-1", run.index, None)
    assert index.clip is not None and index.clip.model == "demo"
    assert (index.safety_head, index.violence_vectors, index.aesthetic_vectors) == ("demo", "", "demo")


def test_a_run_with_violence_prompts_filters_by_them(tmp_path):
    run = make_run(tmp_path / "pop-1", Config(score=ScoreConfig(violence_prompts="prompts.npy")))
    run.index.mkdir()
    [index] = settings_for_run(run).indices
    assert index.violence_vectors == str(run.folder / "prompts.npy")


def test_a_run_on_an_index_of_others_serves_that_one(tmp_path):
    (tmp_path / "laion").mkdir()
    run = make_run(tmp_path / "pop-1", Config(pool=PoolConfig(index=str(tmp_path / "laion"))))
    assert settings_for_run(run).indices[0].folder == tmp_path / "laion"


def test_a_run_without_an_index_says_what_to_do(tmp_path):
    with pytest.raises(ConfigError, match="popfactory index"):
        settings_for_run(make_run(tmp_path / "pop-1", Config()))
    with pytest.raises(ConfigError, match="ask that one"):
        settings_for_run(make_run(tmp_path / "pop-2", Config(pool=PoolConfig(server="http://h:1234"))))
    with pytest.raises(DataError, match="popfactory init"):
        settings_for_run(Run(tmp_path / "nothing"))
