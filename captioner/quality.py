"""What is measured of a caption."""


def word_count(caption: str) -> int:
    """Words of a caption: what stands between white space."""
    return len(caption.split())
