"""The 64-bit id that ties a picture's vector, metadata, decisions and captions together; and the id of a caption.

Where a picture has an address, it is LAION's own join key, so that LAION's side tables fit; where it
has none, it comes from its bytes, so that a file keeps its id wherever it is moved.
"""

import hashlib

import mmh3


def laion_id(url: str, text: str | None) -> int:
    """The id of a picture known by its address: LAION's `hash` column.

    Args:
        url: Its address, as the pool gives it.
        text: Its alt text; None counts as empty.

    Returns:
        The first 64-bit half, signed, of MurmurHash3-128 (x64, seed 0) over the UTF-8 of url + text.

    Source: rom1504/laion-prepro, laion5B/safety/compute_hashes.py.
    """
    key = (url + (text or "")).encode("utf-8", "surrogatepass")
    return int(mmh3.hash64(key, signed=True)[0])


def content_id(content: bytes) -> int:
    """The id of a picture without an address: the first 8 bytes of its SHA-256, big-endian, signed."""
    return int.from_bytes(hashlib.sha256(content).digest()[:8], "big", signed=True)


def caption_id(content: str, captioner: str, take: int = 0) -> str:
    """The name of a caption: the same for the same picture and captioner, on any machine.

    Args:
        content: SHA-256 of the picture's bytes, in hex.
        captioner: Its id.
        take: The seed of a caption whose words are drawn; 0 for the likeliest words.

    Returns:
        32 hex digits.
    """
    drawn = f"\0{take}" if take else ""
    return hashlib.sha256(f"{content}\0{captioner}{drawn}".encode()).hexdigest()[:32]
