"""The pictures that takedown and hash lists name, while captions are made: they go to no engine."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from captioner.asked import Asked
from captioner.engine import CaptionFailure, Engine, Prepared
from captioner.replies import KeptReplies
from captioner.rows import Row, caption_row
from captioner.worklist import Unit
from spine.listed import Listed


def to_be_read(listed: Listed, batch: Sequence[Unit]) -> list[Unit]:
    """The same batch; what a list names by now is not opened.

    Raises:
        ConfigError: A list can't be read.
    """
    rules = listed.rules()
    return [replace(unit, wanted=None) if _is_named(unit, rules) else unit for unit in batch]


def rows_unless_listed(
    listed: Listed,
    who: Asked,
    engine: Engine,
    batch: Sequence[Unit],
    pictures: Sequence[Prepared | CaptionFailure],
    take: int = 0,
    kept: KeptReplies | None = None,
) -> list[Row]:
    """As `Asked.rows`; what a list names by now is not put to the engine, and fails by the list's rule.

    Raises:
        ConfigError: A list can't be read.
    """
    rules = listed.rules()
    put = [
        _on_a_list(rules[unit.ids[0]]) if _is_named(unit, rules) else picture
        for unit, picture in zip(batch, pictures, strict=True)
    ]
    return refused_where_listed(listed, who, who.rows(engine, batch, put, take, kept), take)


def refused_where_listed(listed: Listed, who: Asked, rows: Sequence[Row], take: int = 0) -> list[Row]:
    """The same rows; one whose picture a list names by now has no caption.

    Each by its own rule, also where another picture of the same content is not named.

    Raises:
        ConfigError: A list can't be read.
    """
    rules = listed.rules()
    return [
        row
        if row["id"] not in rules
        else {
            **caption_row(
                row["caption_id"], _on_a_list(rules[row["id"]]), who.prompt, who.setup, who.captioner, take
            ),
            "id": row["id"],
        }
        for row in rows
    ]


def _is_named(unit: Unit, rules: Mapping[int, str]) -> bool:
    """Whether every picture that has this content is named: then it goes to no engine."""
    return all(number in rules for number in unit.ids)


def _on_a_list(rule: str) -> CaptionFailure:
    return CaptionFailure(rule, "on a list; select again")
