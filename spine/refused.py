"""Why a picture can't be used, with the hashes that lists know it by."""

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refused:
    """Why a picture can't be used."""

    reason: str
    message: str
    sha256: str | None = None
    """Of its bytes, where they could be read."""
    md5: str | None = None
    pdq: str | None = None


def md5_of(content: bytes) -> str:
    """MD5 in hex: no guard against forgery, but what some lists and LAION's own variants name pictures by."""
    return hashlib.md5(content, usedforsecurity=False).hexdigest()
