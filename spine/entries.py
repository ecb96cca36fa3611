"""One input of a source, and what its source says of it: in columns, in JSON or in a text beside it.

Sources are written by others: what has the wrong type, is too long or can't be read counts as not said.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from spine.ids import laion_id

TEXT_LIMIT = 65_536
"""Bytes of a caption that are read."""

JSON_LIMIT = 1_000_000
"""Bytes of a sidecar's JSON; a longer one is not read."""

NAMES: dict[str, tuple[str, ...]] = {
    "url": ("url", "image_url"),
    "caption": ("caption", "text", "alt_text", "alt", "top_caption"),
    "key": ("key", "uid", "sample_id"),
    "width": ("width", "original_width"),
    "height": ("height", "original_height"),
    "alt_txt_similarity": (
        "alt_txt_similarity",
        "similarity",
        "clip_l14_similarity_score",
        "clip_b32_similarity_score",
    ),
    "aesthetic": ("aesthetic", "aesthetic_score"),
    "pwatermark": ("pwatermark",),
    "punsafe": ("punsafe",),
}
"""Our name for a column or JSON key to what sources call it, in lower case; the first present counts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """One input of a source, with what the source says of it. None: it doesn't say."""

    place: str | None = None
    """Where its bytes lie (see spine.places); None where only an address is known."""
    url: str | None = None
    web_id: int | None = None
    """LAION's key over address and text exactly as the source gives them; None without an address."""
    caption: str | None = None
    key: str | None = None
    """The name its source gives it."""
    width: int | None = None
    height: int | None = None
    alt_txt_similarity: float | None = None
    aesthetic: float | None = None
    pwatermark: float | None = None
    punsafe: float | None = None
    content: bytes | None = field(default=None, repr=False, compare=False)
    """Its bytes, where the source is only read from one end to the other; None: they are to be read at its place."""
    problem: str | None = None
    """Why this part of the source can't be read; place then names it and has no bytes to read."""

    @property
    def name(self) -> str:
        """Its place, or else its address: what a status names it by."""
        return self.place or self.url or self.key or ""


def described(
    place: str, key: str | None, text: bytes | None, about: bytes | None, content: bytes | None = None
) -> Entry:
    """An entry from what stands beside it. Notes that can't be read count as none: the picture is what matters."""
    values: Mapping[str, Any] = {}
    if about is not None and len(about) <= JSON_LIMIT:
        try:
            read = json.loads(about)
            values = read if isinstance(read, dict) else {}
        except (ValueError, RecursionError):
            values = {}
    fields = fields_of({str(name).lower(): value for name, value in values.items()})
    if text is not None:
        noted = fields["caption"]
        fields["caption"] = clean(text[:TEXT_LIMIT].decode("utf-8", "replace"))
        if noted is None and fields["web_id"] is not None:
            fields["web_id"] = laion_id(fields["url"], fields["caption"])
    return Entry(
        **{"key": key, "place": place, "content": content}
        | {name: value for name, value in fields.items() if value is not None}
    )


def fields_of(values: Mapping[str, Any]) -> dict[str, Any]:
    """Our fields from a source's columns or keys, in lower case; each of the right type or None."""
    fields: dict[str, Any] = {}
    for name, theirs in NAMES.items():
        value = next((values[other] for other in theirs if values.get(other) is not None), None)
        if name in ("url", "caption", "key"):
            fields[name] = clean(str(value)) if isinstance(value, str | int) else None
        elif isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
            if name in ("width", "height"):
                fields[name] = int(value) if 0 < value < 2**31 else None
            else:
                fields[name] = float(value)
        else:
            fields[name] = None
    fields["web_id"] = _web_id(values) if fields["url"] else None
    return fields


def _web_id(values: Mapping[str, Any]) -> int:
    """Over the texts as they stand: trimmed or shortened they would give another key than LAION's."""
    url, text = (
        next((values[other] for other in NAMES[name] if values.get(other) is not None), None)
        for name in ("url", "caption")
    )
    return laion_id(str(url), str(text) if isinstance(text, str | int) else None)


def clean(text: str) -> str | None:
    """Text that any table takes: no lone surrogates, no null signs, of bounded length; None when nothing is left."""
    valid = text[:TEXT_LIMIT].encode("utf-8", "replace").decode("utf-8")
    return valid.replace("\x00", "").strip() or None
