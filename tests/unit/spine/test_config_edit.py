import gc
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields

import pytest

from spine.config import _read_meanings, load_config, meanings, preset, write_config
from spine.config_edit import change_settings, digest_of, settings_of
from spine.errors import ConfigError
from spine.settings import CaptionConfig, Config, FiltersConfig

MINE = """# my run
[filters]   # what I like
min_side_px = 512  # phones too
aesthetic_min = { head = "v2", value = 5.0 }

[caption]
endpoints = [
    "http://127.0.0.1:8000/v1",  # the old one
]
"""


@pytest.fixture
def toml(tmp_path):
    path = tmp_path / "popfactory.toml"
    path.write_text(MINE)
    return path


def seen(path):
    return digest_of(path.read_bytes())


def test_every_setting_is_listed_with_its_value_its_default_and_its_meaning():
    config = Config(filters=FiltersConfig(min_side_px=512))

    rows = {(row.table, row.key): row for row in settings_of(config)}

    side = rows["filters", "min_side_px"]
    assert (side.value, side.default, side.meaning) == (512, 768, "Pixels of the shorter side at least.")
    assert rows["filters", "aesthetic_min.value"].meaning.startswith("Lowest score kept")
    assert {table for table, _ in rows} == set(Config.__dataclass_fields__)
    assert all(row.meaning for row in rows.values())


def test_a_change_leaves_comments_and_every_other_setting_alone(toml):
    changes = {
        ("filters", "min_side_px"): 1024,
        ("filters", "aesthetic_min.value"): 5.5,
        ("caption", "prompt"): "detail",
        ("release", "name"): "ours",
    }

    after = change_settings(toml, changes, seen=seen(toml))

    assert after == seen(toml)
    config = load_config(toml)
    assert (config.filters.min_side_px, config.filters.aesthetic_min.value) == (1024, 5.5)
    assert (config.filters.aesthetic_min.head, config.caption.prompt) == ("v2", "detail")
    assert config.caption.endpoints == ("http://127.0.0.1:8000/v1",) and config.release.name == "ours"
    text = toml.read_text()
    assert all(comment in text for comment in ("# my run", "# what I like", "# phones too", "# the old one"))


def test_a_written_file_can_be_changed_and_read_again(tmp_path):
    path = tmp_path / "popfactory.toml"
    write_config(path, preset("laion-pop-2023"))
    before = path.read_text().splitlines()

    change_settings(
        path,
        {("filters", "punsafe_max"): 0.25, ("caption", "endpoints"): ["http://a/v1", "http://b/v1"]},
        seen=seen(path),
    )

    config = load_config(path)
    assert config.filters.punsafe_max == 0.25 and config.caption.endpoints == ("http://a/v1", "http://b/v1")
    assert len(set(before) - set(path.read_text().splitlines())) <= 2
    off = {("filters", "punsafe_max"): None, ("filters", "pwatermark_max"): None}
    change_settings(path, off, seen=seen(path))
    filters = load_config(path).filters
    assert (filters.punsafe_max, filters.pwatermark_max) == (None, None)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        (("filters", "min_side_px"), -1, "0 or more"),
        (("filters", "min_side_px"), "large", "a whole number was needed"),
        (("filters", "min_side"), 3, "did you mean min_side_px"),
        (("filter", "min_side_px"), 3, "did you mean filters"),
        (("caption", "second_try"), None, "can't be switched off"),
        (("caption", "prompt"), None, "a text in quotes was needed"),
        (("filters", "min_side_px.value"), 3, "can't be changed"),
        (("caption", "engine"), "magic", "embedded or http"),
    ],
)
def test_a_wrong_change_is_refused_and_the_file_stays(toml, key, value, says):
    with pytest.raises(ConfigError, match=says):
        change_settings(toml, {key: value}, seen=seen(toml))

    assert toml.read_text() == MINE


def test_a_file_that_changed_meanwhile_is_not_changed_over(toml):
    first = seen(toml)
    toml.write_text(MINE + "\n[release]\nname = 'theirs'\n")

    with pytest.raises(ConfigError, match="changed since you read it"):
        change_settings(toml, {("release", "name"): "mine"}, seen=first)

    assert load_config(toml).release.name == "theirs"


def test_of_many_changes_at_once_to_the_same_file_one_is_taken(toml):
    first = seen(toml)

    def change(side):
        try:
            change_settings(toml, {("filters", "min_side_px"): side}, seen=first)
        except ConfigError:
            return None
        return side

    with ThreadPoolExecutor(8) as pool:
        taken = [side for side in pool.map(change, range(600, 616)) if side is not None]

    assert taken == [load_config(toml).filters.min_side_px]


class Garbage:
    """A cycle whose end runs Python: collected while a syntax tree is made, it lets another thread in."""

    def __init__(self):
        self.cycle = self

    def __del__(self):
        sum(range(200))


def test_many_threads_can_ask_for_meanings_at_once():
    def ask(_):
        for _ in range(10):
            [Garbage() for _ in range(50)]
            _read_meanings.cache_clear()
            told = meanings(CaptionConfig)
        return told

    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(16) as pool:
            told = list(pool.map(ask, range(64)))
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)

    assert all(each == told[0] and len(each) == len(fields(CaptionConfig)) for each in told)
