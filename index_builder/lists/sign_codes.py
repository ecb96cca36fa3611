"""How an index keeps RaBitQ's codes: one bit a dimension, and two numbers a row."""

from dataclasses import dataclass
from typing import Any

from index_builder.numerics.faiss_library import load_faiss


@dataclass(frozen=True, slots=True)
class SignCodes:
    """What tells how they are scored."""

    width: int
    """Bytes of a row's bits; the two numbers follow, float32."""
    levels: int
    """What a query's values are rounded to, 0 to this."""
    kind: str = "signs"
    """What scoring costs goes by it."""

    @classmethod
    def of(cls, ivf: Any) -> "SignCodes | None":
        """Those of an IVF index; None for other kinds, more bits a dimension, and queries that aren't rounded.

        Args:
            ivf: A FAISS index, downcast.
        """
        if type(ivf) is not load_faiss().IndexIVFRaBitQ or ivf.rabitq.nb_bits != 1 or not 1 <= ivf.qb <= 8:
            return None
        return cls(-(-int(ivf.d) // 8), 2 ** int(ivf.qb) - 1)
