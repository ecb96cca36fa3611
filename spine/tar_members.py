"""Members of WebDataset tars: what their names are, and how they are added so that equal rows give equal tars.

Source: webdataset/webdataset, "The WebDataset Format".
"""

import io
import tarfile


def key_of(picture_id: int) -> str:
    """The name of a picture's members: its id as 16 hex digits, without a sign."""
    return f"{picture_id % 2**64:016x}"


def add_member(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Add a member with the same time, owner and rights as all others."""
    member = tarfile.TarInfo(name)
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))
