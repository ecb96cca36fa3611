"""Names for centroids without captions: the nearest entries of a vocabulary, by CLIP's text side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from index_builder.encoding.clip import ClipEncoder, clip_name
from spine.errors import DataError, ModelError
from spine.progress import Progress
from spine.settings import ClipConfig
from spine.tables import Vectors

BUILTIN = "builtin"
"""The vocabulary that comes with popfactory."""

NAMED_BY = 2
"""Entries in a label."""

_LONGEST = 200_000  # entries: 30 minutes of a CPU
_TEMPLATE = "a picture of {}"
_OWN = Path(__file__).with_name("vocabulary.txt")


def read_vocabulary(name: str) -> list[str]:
    """The entries of a vocabulary, each once, in its order.

    Args:
        name: "builtin", or a text file with a word or phrase a line; lines that begin with # are left out.

    Raises:
        DataError: The file can't be read, or holds no entry or too many.
    """
    path = _OWN if name == BUILTIN else Path(name).expanduser()
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"[centroids] vocabulary = {name!r}: can't be read ({error}); name a text file, builtin or nothing"
        ) from None
    entries = list(dict.fromkeys(line for line in lines if line and not line.startswith("#")))
    if not 1 <= len(entries) <= _LONGEST:
        raise DataError(f"{path}: {len(entries):,} entries, 1 to {_LONGEST:,} were needed")
    return entries


def named_by_vocabulary(
    centroids: Vectors, config: ClipConfig, vocabulary: str, model: str | None, progress: Progress
) -> list[str] | None:
    """A name for each centroid.

    Args:
        centroids: Shape (k, d), rows of L2 norm 1.
        config: The model whose text side is asked.
        vocabulary: As `read_vocabulary` takes it; empty for none.
        model: What made the centroids' embeddings.
        progress: Told why there are no names, where the model can't give them.

    Returns:
        Such as "dragon, castle"; None without a vocabulary, or where the model isn't the embeddings' or not here.

    Raises:
        DataError: The vocabulary can't be read.
    """
    if not vocabulary or not len(centroids):
        return None
    entries = read_vocabulary(vocabulary)
    if model != clip_name(config):
        progress.say(
            f"no names from a vocabulary: embeddings are of {model}, [clip] names {clip_name(config)}"
        )
        return None
    try:
        encoder = ClipEncoder.load(config)
    except ModelError as error:
        progress.say(f"no names from a vocabulary: {error}")
        return None
    return nearest_entries(
        centroids, encoder.encode_texts([_TEMPLATE.format(entry) for entry in entries]), entries
    )


def nearest_entries(centroids: Vectors, texts: Vectors, entries: Sequence[str]) -> list[str]:
    """The nearest entries of each centroid.

    An entry counts by how much nearer it is to a centroid than to centroids at large: some texts are near to all
    pictures.

    Args:
        centroids: Shape (k, d), rows of L2 norm 1.
        texts: Shape (m, d), of the entries.
        entries: As people read them.
    """
    similarities = centroids @ texts.T
    if len(centroids) > 1:
        similarities -= similarities.mean(axis=0)
    nearest = np.argsort(-similarities, axis=1, kind="stable")[:, :NAMED_BY]
    return [", ".join(entries[number] for number in row) for row in nearest]
