import pytest

from spine.config import load_config
from spine.config_edit import settings_of
from spine.errors import ConfigError, DataError
from spine.settings import Config
from ui.settings_form import EDITABLE, save_settings, setting_rows, settings_digest


def change(run, table, key, value):
    changes = [{"table": table, "key": key, "value": value}]
    return save_settings(run, {"seen": settings_digest(run), "changes": changes})


def test_every_setting_is_shown_and_those_a_page_may_change_are_marked():
    rows = setting_rows(Config())

    assert [(row["table"], row["key"]) for row in rows] == [
        (row.table, row.key) for row in settings_of(Config())
    ]
    marked = {(row["table"], row["key"]) for row in rows if row["editable"]}
    assert marked == {(table, key) for table, keys in EDITABLE.items() for key in keys}
    assert not {table for table, _ in marked} & {"lists", "concepts", "pool", "score", "clip"}
    kinds = {row["key"]: row["kind"] for row in rows if row["table"] in ("filters", "caption")}
    assert kinds["min_side_px"] == kinds["punsafe_max"] == "number"
    assert (kinds["second_try"], kinds["endpoints"], kinds["prompt"]) == ("truth", "texts", "text")


def test_a_change_is_written(planted):
    before = settings_digest(planted.run)

    after = change(planted.run, "filters", "aesthetic_min.value", 5.25)

    assert load_config(planted.run.config).filters.aesthetic_min.value == 5.25
    assert after == settings_digest(planted.run) != before


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("lists", "takedown", []),
        ("score", "unsafe_head", ""),
        ("caption", "api_key_env", "HOME"),
        ("filters", "nothing", 1),
        ("filters", "min_side_px", {"a": 1}),
        ("release", "name", "two\nlines"),
        ("release", "licence", "x" * 1001),
        ("caption", "endpoints", [None]),
    ],
)
def test_what_is_not_a_pages_to_change_stays(planted, table, key, value):
    before = planted.run.config.read_bytes()

    with pytest.raises(DataError):
        change(planted.run, table, key, value)

    assert planted.run.config.read_bytes() == before


def test_where_a_key_is_sent_no_page_says_to_whom(planted):
    config = planted.run.config
    config.write_text(config.read_text().replace('api_key_env = ""', 'api_key_env = "CAPTION_KEY"'))

    change(planted.run, "caption", "prompt", "short")
    with pytest.raises(ConfigError, match="a key is sent to them"):
        change(planted.run, "caption", "endpoints", ["http://elsewhere.example/v1"])


def test_a_page_that_shows_an_older_file_is_told(planted):
    seen = settings_digest(planted.run)
    change(planted.run, "select", "quota_per_centroid", 7)

    with pytest.raises(ConfigError, match="changed since"):
        save_settings(
            planted.run,
            {"seen": seen, "changes": [{"table": "select", "key": "quota_per_centroid", "value": 9}]},
        )
    with pytest.raises(DataError):
        save_settings(planted.run, {"changes": []})
