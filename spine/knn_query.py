"""The body of POST /knn-service, clip-retrieval's one query message, with every check a server needs.

Source: github.com/rom1504/clip-retrieval 2.45, clip_retrieval/clip_back.py and clip_client.py.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, cast

import numpy as np

from spine.errors import DataError
from spine.tables import Vectors

MAX_RESULTS = 10_000
"""num_result_ids, k and a list of ids at most."""

MAX_TEXT_CHARACTERS = 10_000
"""Length of a text query at most; CLIP reads 77 tokens of it."""


@dataclass(frozen=True, kw_only=True, slots=True, eq=False)
class KnnQuery:
    """The body of POST /knn-service. Of text, image, image_url and embedding_input the first given counts."""

    text: str | None = None
    image: str | None = None
    """A picture file in base64, without a data: prefix."""
    image_url: str | None = None
    embedding_input: Sequence[float] | Vectors | None = None
    """d numbers, or an array (d,); searched as they are, not scaled to unit length."""
    modality: str = "image"
    """Which index of the folder: image or text."""
    num_images: int | None = None
    """How many results carry metadata, as a Python slice: -1 is all but the last, None all."""
    num_result_ids: int | None = None
    """How many neighbours to search, 1 to MAX_RESULTS; None is num_images."""
    indice_name: str | None = None
    """Which of the server's indices; None is its first."""
    use_mclip: bool = False
    deduplicate: bool = False
    use_safety_model: bool = False
    use_violence_detector: bool = False
    aesthetic_score: int | None = None
    """Pull the query towards pictures of this rating, 0 to 9; None is off."""
    aesthetic_weight: float = 0.5

    @property
    def k(self) -> int:
        """How many neighbours to search.

        Raises:
            DataError: Neither num_result_ids nor num_images says so.
        """
        k = self.num_images if self.num_result_ids is None else self.num_result_ids
        if k is None:
            raise DataError("num_result_ids is missing, and so is num_images")
        return k

    def to_json(self) -> dict[str, Any]:
        """Every field as clip-retrieval's own clients send it; "" switches the aesthetic pull off."""
        content = {field.name: getattr(self, field.name) for field in fields(self)}
        content["num_result_ids"] = self.k
        if self.embedding_input is not None:
            content["embedding_input"] = [float(value) for value in self.embedding_input]
        if self.aesthetic_score is None:
            content["aesthetic_score"] = content["aesthetic_weight"] = ""
        return content

    @classmethod
    def from_json(cls, content: object) -> "KnnQuery":
        """Read and check a request's body. Fields it doesn't know are ignored, as clip-retrieval does.

        Raises:
            DataError: A value has the wrong type or is out of range, or nothing is asked.
        """
        if not isinstance(content, Mapping):
            raise DataError('the body is no JSON object; {"text": "...", "num_images": 40} was needed')
        score = _aesthetic_score(content.get("aesthetic_score"))
        query = cls(
            text=_text(content, "text"),
            image=_text(content, "image"),
            image_url=_text(content, "image_url"),
            embedding_input=_embedding(content.get("embedding_input")),
            modality=_text(content, "modality") or "image",
            num_images=_whole(content, "num_images"),
            num_result_ids=_whole(content, "num_result_ids"),
            indice_name=_text(content, "indice_name"),
            use_mclip=_flag(content, "use_mclip"),
            deduplicate=_flag(content, "deduplicate"),
            use_safety_model=_flag(content, "use_safety_model"),
            use_violence_detector=_flag(content, "use_violence_detector"),
            aesthetic_score=score,
            aesthetic_weight=0.5 if score is None else _aesthetic_weight(content.get("aesthetic_weight")),
        )
        check_k(query.k, "num_result_ids" if query.num_result_ids is not None else "num_images")
        if query.modality not in ("image", "text"):
            raise DataError(f"modality is {query.modality[:40]!r}, image or text was needed")
        if query.text is not None and len(query.text) > MAX_TEXT_CHARACTERS:
            raise DataError(f"text has {len(query.text):,} characters, {MAX_TEXT_CHARACTERS:,} at most")
        if not query.text and not query.image and not query.image_url and query.embedding_input is None:
            raise DataError("no query: one of text, image, image_url and embedding_input was needed")
        return query


def check_k(k: int, name: str) -> None:
    """Check how many neighbours are asked for.

    Raises:
        DataError: Not in 1 to MAX_RESULTS; `name` says which field.
    """
    if not 1 <= k <= MAX_RESULTS:
        raise DataError(f"{name} is {short(k)}, 1 to {MAX_RESULTS:,} was needed")


def _text(content: Mapping[str, Any], name: str) -> str | None:
    value = content.get(name)
    if value is None or isinstance(value, str):
        return value
    raise DataError(f"{name} is {short(value)}, a text or null was needed")


def _whole(content: Mapping[str, Any], name: str) -> int | None:
    value = content.get(name)
    if value is None or type(value) is int:
        return value
    raise DataError(f"{name} is {short(value)}, a whole number was needed")


_FLAGS = {"true": True, "false": False, "": False}


def _flag(content: Mapping[str, Any], name: str) -> bool:
    value = content.get(name)
    if value is None or (type(value) in (bool, int) and value in (0, 1)):
        return bool(value)
    if isinstance(value, str) and value.lower() in _FLAGS:
        return _FLAGS[value.lower()]
    raise DataError(f"{name} is {short(value)}, true or false was needed")


_LISTS = "embedding_input holds lists, one list of numbers was needed; POST /knn-batch takes many"


def _embedding(value: object) -> Vectors | None:
    if value is None:
        return None
    if not isinstance(value, list) or not value:
        raise DataError(f"embedding_input is {short(value)}, a list of numbers was needed")
    try:
        with np.errstate(over="ignore"):
            # takes numbers written as texts, as clip-retrieval does
            array = np.asarray(value, dtype=np.float32)
    except (TypeError, ValueError, OverflowError):
        lists = any(isinstance(entry, list) for entry in value)
        raise DataError(_LISTS if lists else "embedding_input holds something that is no number") from None
    if array.ndim > 1:
        raise DataError(_LISTS)
    if not np.isfinite(array).all():
        raise DataError("embedding_input holds null, NaN or a number too large; finite numbers were needed")
    return array


def _aesthetic_score(value: object) -> int | None:
    if value is None or value == "":
        return None
    if type(value) is int and 0 <= value <= 9:
        return value
    if isinstance(value, str) and len(value) == 1 and value in "0123456789":
        return int(value)
    raise DataError(f'aesthetic_score is {short(value)}, 0 to 9 was needed, or "" for none')


def _aesthetic_weight(value: object) -> float:
    if type(value) in (int, float, str) and value != "":
        try:
            weight = float(cast(str, value))
        except (ValueError, OverflowError):
            weight = math.nan
        if abs(weight) <= 1e6:
            return weight
    raise DataError(f"aesthetic_weight is {short(value)}, a number was needed with an aesthetic_score")


def short(value: object) -> str:
    """A JSON value from outside, in a few words for a message."""
    # Not repr: a million-digit number or a nested list would be written out in full first.
    if isinstance(value, str):
        return repr(value[:40])
    if isinstance(value, int) and abs(value) >= 10**18:
        return "a number of 19 digits or more"
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    return "an object" if isinstance(value, Mapping) else json.dumps(value)
