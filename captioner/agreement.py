"""How well captions agree with their pictures, by CLIP, sentence by sentence, beside the same words on other pictures.

CLIP reads 77 tokens, less than a caption, and a whole caption's similarity hides a wrong half sentence; so each
sentence is compared by itself. Similarities lie in a narrow band that differs by model, so what they mean is told by
the control: the same caption beside another picture of the run.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from captioner.cleaning import sentences
from spine.manifest import find_manifest
from spine.publish import publish_table
from spine.run import Run
from spine.table_files import read_parts, read_table
from spine.tables import AGREEMENT, Vectors, scores_schema, vectors_of

_DIGITS = 4  # rounding in the last bits depends on what is encoded together


class TextEncoder(Protocol):
    """The text side of the CLIP model that embedded the run's pictures."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Embed texts: shape (n, d), float32, rows of L2 norm 1."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a run's captions come to."""

    clip_model: str
    captions: int
    """That were measured."""
    matched: float
    """Mean similarity of captions to their own pictures."""
    shuffled: float
    """Of the same captions to other pictures."""
    shuffled_p95: float
    """Of the similarities to other pictures, the one that 95 % lie at or below."""
    auc: float
    """Chance that a caption beside its own picture is nearer than one beside another."""
    unlike: int
    """Captions that are no nearer to their picture than shuffled_p95."""


def measure_agreement(
    run: Run, rows: pa.Table, sample: int, load_encoder: Callable[[], TextEncoder]
) -> dict[str, Any] | None:
    """Measure up to `sample` captions and publish captions/agreement.parquet; what is there is not measured again.

    Args:
        run: With scores, whose embeddings of the pictures are used.
        rows: Captioned rows: caption_id, id and caption.
        sample: Captions at most; those with the lowest SHA-256 of their ids, as if drawn at random.
        load_encoder: Called where there is something to encode.

    Returns:
        Agreement as a dict; None where there are no scores, or fewer than two captions of different pictures.
    """
    scores = find_manifest(run.scores)
    if scores is None:
        return None
    drawn = _drawn(rows, sample)
    pictures = _embeddings(run, int(scores.facts["d"]), drawn["id"])
    drawn = drawn.filter(pc.is_in(drawn["id"], pa.array(sorted(pictures), pa.int64())))
    if drawn.num_rows < 2:
        return None
    entries = drawn.to_pylist()
    model = str(scores.facts["model"])
    # The other picture is the next one, in an order that has nothing to do with what they show.
    pairs = [
        _Pair.of(entry, other["id"]) for entry, other in zip(entries, [*entries[1:], entries[0]], strict=True)
    ]
    known = _known(run, model)
    missing = [pair for pair in pairs if pair.key not in known]
    if missing:
        known |= _measured(missing, pictures, load_encoder(), model)
    table = pa.Table.from_pylist([known[pair.key] for pair in pairs], AGREEMENT)
    publish_table(run.caption_agreement, table)
    return asdict(_summed(table, model))


def _drawn(rows: pa.Table, sample: int) -> pa.Table:
    """One row a content, in the order of the hash of its picture's id."""
    _, first = np.unique(np.array(rows["caption_id"].to_pylist(), dtype=str), return_index=True)
    rows = rows.take(pa.array(np.sort(first))).select(["caption_id", "id", "caption"])
    keys = [hashlib.sha256(str(number).encode()).digest() for number in rows["id"].to_pylist()]
    order = sorted(range(len(keys)), key=keys.__getitem__)[:sample]
    return rows.take(pa.array(order, pa.int64()))


def _embeddings(run: Run, d: int, ids: pa.ChunkedArray) -> dict[int, Vectors]:
    """Of each of these pictures that was scored: shape (d,), L2 norm 1."""
    scored = read_parts(run.scores, scores_schema(d), ["id", "embedding"])
    scored = scored.filter(pc.is_in(scored["id"], ids.combine_chunks()))
    vectors = vectors_of(scored["embedding"])
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    return dict(zip(scored["id"].to_pylist(), vectors, strict=True))


@dataclass(frozen=True, slots=True)
class _Pair:
    """A caption, its picture, and another one."""

    key: tuple[str, str, int]
    """Caption id, digest of the words (asked again, the same captioner may say others), and the other picture."""
    id: int
    caption: str

    @classmethod
    def of(cls, entry: dict[str, Any], other: int) -> "_Pair":
        digest = hashlib.sha256(entry["caption"].encode()).hexdigest()[:16]
        return cls((entry["caption_id"], digest, other), entry["id"], entry["caption"])


def _known(run: Run, model: str) -> dict[tuple[str, str, int], dict[str, Any]]:
    if not run.caption_agreement.is_file():
        return {}
    rows = read_table(run.caption_agreement, AGREEMENT).to_pylist()
    return {
        (row["caption_id"], row["caption_digest"], row["other_id"]): row
        for row in rows
        if row["clip_model"] == model
    }


def _measured(
    pairs: Sequence[_Pair], pictures: dict[int, Vectors], encoder: TextEncoder, model: str
) -> dict[tuple[str, str, int], dict[str, Any]]:
    said = [sentences(pair.caption) for pair in pairs]
    texts = list(dict.fromkeys(sentence for each in said for sentence in each))
    vectors = dict(zip(texts, encoder.encode_texts(texts), strict=True))
    found = {}
    for pair, parts in zip(pairs, said, strict=True):
        name, digest, other = pair.key
        embedded = np.stack([vectors[part] for part in parts])
        own = embedded @ pictures[pair.id]
        found[pair.key] = {
            "caption_id": name,
            "id": pair.id,
            "sentences": len(parts),
            "clip_mean": round(float(own.mean()), _DIGITS),
            "clip_min": round(float(own.min()), _DIGITS),
            "worst_sentence": parts[int(own.argmin())],
            "other_id": other,
            "clip_other": round(float((embedded @ pictures[other]).mean()), _DIGITS),
            "clip_model": model,
            "caption_digest": digest,
        }
    return found


def _summed(table: pa.Table, model: str) -> Agreement:
    own = np.asarray(table["clip_mean"].to_numpy(), dtype=np.float64)
    other = np.sort(np.asarray(table["clip_other"].to_numpy(), dtype=np.float64))
    below, up_to = np.searchsorted(other, own, side="left"), np.searchsorted(other, own, side="right")
    limit = float(np.percentile(other, 95, method="inverted_cdf"))
    return Agreement(
        clip_model=model,
        captions=len(own),
        matched=round(float(own.mean()), _DIGITS),
        shuffled=round(float(other.mean()), _DIGITS),
        shuffled_p95=round(limit, _DIGITS),
        auc=round(float((below + up_to).mean() / 2 / len(other)), _DIGITS),
        unlike=int((own <= limit).sum()),
    )
