"""The pictures that metadata names, put into an answer as clip-retrieval does: base64 JPEG beside `image_path`.

clip-retrieval opens whatever file of the machine a pool's metadata names. Here only pictures below one
folder are opened, named by the index's settings; without it none are.
"""

import base64
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from retrieval_server.picture_decoder import PictureDecoder
from retrieval_server.refusals import Refusal
from retrieval_server.takedowns import refuse_listed_picture
from spine.images import MAX_BYTES
from spine.lists import BlockLists

MAX_PICTURES = 1_000
"""Put into one answer; the results after them carry their path alone."""


class InlinedPictures:
    """Adds `image` to metadata whose `image_path` is a picture below one folder."""

    def __init__(self, folder: Path) -> None:
        """Remember the folder, its links followed."""
        self._folder = folder.resolve()
        self._decoder = PictureDecoder()

    def add_to(self, records: Iterable[dict[str, Any]], lists: BlockLists) -> None:
        """Set `image` in the first MAX_PICTURES records whose picture may be shown; the others have none."""
        for number, record in enumerate(records):
            if number >= MAX_PICTURES:
                break
            picture = self.jpeg(record.get("image_path"), lists)
            if picture is not None:
                record["image"] = base64.b64encode(picture).decode()

    def jpeg(self, path: object, lists: BlockLists) -> bytes | None:
        """The picture at `path` as JPEG, RGB; None where there is none that may be shown.

        Args:
            path: Absolute, or from the folder. Links are followed first: what counts is where the file lies.
            lists: Of what may not be shown, whatever the metadata says.
        """
        if not isinstance(path, str) or not path or "\0" in path:
            return None
        try:
            place = (self._folder / path).resolve()
            if (
                not place.is_relative_to(self._folder)
                or not place.is_file()
                or place.stat().st_size > MAX_BYTES
            ):
                return None
            content = place.read_bytes()
            refuse_listed_picture(lists, content)
            return self._decoder.jpeg(content)
        except (OSError, RuntimeError, Refusal):  # RuntimeError: links in a circle
            return None

    def close(self) -> None:
        """End what opens them."""
        self._decoder.close()
