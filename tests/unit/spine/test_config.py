import tomllib
from dataclasses import fields, replace
from pathlib import Path

import pytest

from spine.config import load_config, preset, uses_demo_models, with_demo_models, write_config
from spine.errors import ConfigError
from spine.settings import (
    ConceptsConfig,
    Config,
    FiltersConfig,
    ListsConfig,
    PoolConfig,
    ReleaseConfig,
    ScoreConfig,
)


@pytest.mark.parametrize("name", ["standard", "laion-pop-2023"])
@pytest.mark.parametrize("demo", [False, True])
def test_settings_written_read_the_same(tmp_path, name, demo):
    config = with_demo_models(preset(name)) if demo else preset(name)
    config = replace(
        config,
        lists=ListsConfig(takedown=('/a "quoted"\\name\n.txt', "/b")),
        release=ReleaseConfig(licence="é\x01"),
    )
    path = tmp_path / "popfactory.toml"
    write_config(path, config)

    assert load_config(path) == config
    assert uses_demo_models(config) is demo


def test_a_threshold_that_is_off_stays_off_whatever_its_default(tmp_path):
    path = tmp_path / "popfactory.toml"
    off = FiltersConfig(pwatermark_max=None, punsafe_max=None)
    write_config(path, Config(filters=off))

    assert load_config(path).filters == off
    assert tomllib.loads(path.read_text())["filters"]["pwatermark_max"] is False
    path.write_text("[filters]\npunsafe_max = false\naesthetic_min = { value = false }\n")
    assert load_config(path).filters == FiltersConfig()
    path.write_text("[filters]\nmin_side_px = 0\n")
    assert load_config(path).filters.pwatermark_max == 0.8


def test_every_setting_is_written_with_its_meaning(tmp_path):
    path = tmp_path / "popfactory.toml"
    write_config(path, Config())
    lines = path.read_text().splitlines()
    written = tomllib.loads(path.read_text())
    for table in fields(Config):
        for item in fields(type(getattr(Config(), table.name))):
            place = next(i for i, line in enumerate(lines) if line.lstrip("# ").startswith(f"{item.name} ="))
            assert lines[place - 1].startswith("# ")
        assert table.name in written


def test_an_empty_file_gives_the_defaults(tmp_path):
    path = tmp_path / "popfactory.toml"
    path.write_text("")
    assert load_config(path) == Config()


def test_the_2023_preset_has_the_published_settings():
    config = preset("laion-pop-2023")
    assert (config.clip.model, config.clip.pretrained) == ("ViT-L-14", "openai")
    assert config.centroids.k == 10_000
    assert config.retrieve.aesthetic_query.weight == 0.5
    assert config.filters.min_side_px == 768
    assert config.caption.model == "llava-hf/llava-1.5-13b-hf"
    assert not uses_demo_models(config)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[centroids]\nkk = 3", "[centroids] kk is unknown; did you mean k?"),
        ("[centroid]\nk = 3", "[centroid] is unknown; did you mean centroids?"),
        ('[centroids]\nk = "3"', "[centroids] k = '3', a whole number was needed"),
        ("[centroids]\nk = true", "[centroids] k = True, a whole number was needed"),
        ("[centroids]\nk = 0", "[centroids] k = 0, 1 or more was needed"),
        ("[filters]\npwatermark_max = 1.5", "[filters] pwatermark_max = 1.5, 0 to 1 was needed"),
        (
            "[filters]\npwatermark_max = true",
            "[filters] pwatermark_max = True, a number, or false for off, was needed",
        ),
        ("[filters]\nmin_side_px = false", "[filters] min_side_px = False, a whole number was needed"),
        (
            "[retrieve]\naesthetic_query = { ratin = 9 }",
            "[retrieve.aesthetic_query] ratin is unknown; did you mean rating?",
        ),
        ("[retrieve]\naesthetic_query = 9", "[retrieve] aesthetic_query is 9, a table was needed"),
        (
            '[index]\nmemory_budget = "lots"',
            "[index] memory_budget = 'lots', a size such as \"8GB\" was needed",
        ),
        (
            '[caption]\nengine = "http"',
            "[caption] endpoints = (), one address at least for the http engine was needed",
        ),
        ('[release]\nname = "../x"', "[release] name = '../x', letters, digits, - _ and . was needed"),
        ("[centroids\n", "no valid TOML"),
    ],
)
def test_a_wrong_setting_is_one_line_that_names_its_place(tmp_path, text, line):
    path = tmp_path / "popfactory.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    message = str(raised.value)
    assert message.startswith(str(path)) and line in message and "\n" not in message


def test_a_missing_file_says_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match="popfactory init"):
        load_config(tmp_path / "popfactory.toml")


def test_a_pool_named_twice_is_refused(tmp_path):
    path = tmp_path / "popfactory.toml"
    path.write_text('[pool]\nsource = "photos"\nserver = "http://127.0.0.1:1234"\n')
    with pytest.raises(ConfigError, match=r"\[pool\] source and server are set; name one"):
        load_config(path)


def test_relative_paths_start_from_the_folder_of_the_file_wherever_the_command_runs(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    path = tmp_path / "run" / "popfactory.toml"
    written = Config(
        concepts=ConceptsConfig(source="taste"),
        pool=PoolConfig(index="/laion", side_tables=("a.parquet", "~/b")),
        score=ScoreConfig(
            aesthetic_head="heads/v2.npz", unsafe_head="demo", violence_prompts="laion-violence-l14"
        ),
        lists=ListsConfig(takedown=("../lists/gone.txt",)),
    )
    write_config(path, written)

    read = load_config(path)
    monkeypatch.chdir(tmp_path)
    from_elsewhere = load_config(Path("run/popfactory.toml"))

    assert read == from_elsewhere
    folder = str(tmp_path / "run")
    assert read.concepts.source == f"{folder}/taste"
    assert read.pool.index == "/laion"
    assert read.pool.side_tables == (f"{folder}/a.parquet", str(Path("~/b").expanduser()))
    assert (read.score.aesthetic_head, read.score.unsafe_head) == (f"{folder}/heads/v2.npz", "demo")
    assert read.score.watermark_head == "zero-shot"
    assert read.score.violence_prompts == "laion-violence-l14"
    assert read.lists.takedown == (f"{folder}/../lists/gone.txt",)
    assert read.caption.model == written.caption.model
