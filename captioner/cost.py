"""What captions cost in tokens, and in money where [caption] names prices."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from spine.settings import CaptionConfig
from spine.table_files import read_table
from spine.tables import CAPTIONS

COLUMNS = pa.schema([CAPTIONS.field(name) for name in ("caption_id", "tokens", "prompt_tokens", "captioner")])
"""Columns of CAPTIONS that tell what was spent."""


@dataclass(frozen=True, slots=True)
class Spent:
    """Tokens of answers that stand; second tries and answers that were thrown away are not counted."""

    captions: int = 0
    """That were counted: each content once, and only where the engine says how many tokens there were."""
    tokens: int = 0
    """Of captions."""
    prompt_tokens: int = 0
    """Of pictures and prompts."""

    def __add__(self, other: "Spent") -> "Spent":
        return Spent(
            self.captions + other.captions,
            self.tokens + other.tokens,
            self.prompt_tokens + other.prompt_tokens,
        )

    def cost(self, config: CaptionConfig, times: float = 1.0) -> float | None:
        """In the currency of the prices; None where there are none.

        Args:
            config: Has the prices.
            times: How often this is spent.
        """
        if not config.price_prompt and not config.price_caption:
            return None
        spent = config.price_prompt * self.prompt_tokens + config.price_caption * self.tokens
        return round(times * spent / 1e6, 4)


def spent_on(rows: pa.Table) -> Spent:
    """What these rows took; the columns of COLUMNS.

    Pictures of one content share their caption, which was asked for once.
    """
    counted = rows.filter(pc.is_valid(rows["tokens"])).group_by("caption_id", use_threads=False)
    once = counted.aggregate([("tokens", "first"), ("prompt_tokens", "first")])
    return Spent(
        once.num_rows,
        int(pc.sum(once["tokens_first"]).as_py() or 0),
        int(pc.sum(once["prompt_tokens_first"]).as_py() or 0),
    )


def spent_in(paths: Iterable[Path], captioner: str) -> Spent:
    """What this captioner took in these parts."""
    total = Spent()
    for path in paths:
        rows = read_table(path, COLUMNS)
        total += spent_on(rows.filter(pc.equal(rows["captioner"], captioner)))
    return total


def told(spent: Spent, cost: float | None) -> str:
    """In words."""
    words = f"{spent.tokens:,} tokens of captions, {spent.prompt_tokens:,} of pictures and prompts"
    return words if cost is None else f"{words}, which cost {cost:,.2f}"
