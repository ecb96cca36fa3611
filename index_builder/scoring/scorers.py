"""The models that score a run's pictures: CLIP, its heads, and what looks for watermarks."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from index_builder.encoding.clip import ClipEncoder, clip_name, clip_parameters, device_of
from index_builder.scoring.head_files import read_arrays
from index_builder.scoring.heads import Head, Kind, head_name, load_head, open_head
from index_builder.scoring.watermarks import (
    ZERO_SHOT,
    WatermarkClassifier,
    ZeroShotWatermarks,
    is_classifier,
    zero_shot_name,
)
from spine.config import DEMO
from spine.manifest import find_manifest
from spine.run import Run
from spine.settings import Config, ScoreConfig
from spine.tables import SCORED_BYTES, Vectors, list_column, scores_schema

KINDS: tuple[Kind, ...] = ("aesthetic", "unsafe", "watermark", "violence")
"""The scores, in the order of their columns."""


def head_sources(settings: ScoreConfig) -> dict[Kind, str]:
    """What [score] names for each score; empty where nothing."""
    return {
        "aesthetic": settings.aesthetic_head,
        "unsafe": settings.unsafe_head,
        "watermark": settings.watermark_head,
        "violence": settings.violence_prompts,
    }


def model_names(config: Config) -> dict[str, str | None]:
    """What each score names as its model, None where it has none. Reads files, loads nothing.

    Raises:
        ModelError: A file is missing.
    """
    names: dict[str, str | None] = {}
    for kind, source in head_sources(config.score).items():
        zero_shot = kind == "watermark" and source == ZERO_SHOT
        names[kind] = zero_shot_name(clip_name(config.clip)) if zero_shot else head_name(source, kind)
    return names


def scored_by_demo_models(config: Config) -> bool:
    """Whether any score of these settings comes from a small demo model."""
    return DEMO in (config.clip.model, *head_sources(config.score).values())


def check_heads(settings: ScoreConfig) -> None:
    """See that every head that [score] names can be read.

    Raises:
        ModelError: One can't be.
    """
    for kind, source in head_sources(settings).items():
        if source and not (kind == "watermark" and source == ZERO_SHOT):
            load_scorer(source, kind, None, "cpu")


def load_scorer(source: str, kind: Kind, d: int | None, device: str) -> Head | WatermarkClassifier:
    """What one setting of [score] names: a head on embeddings of dimension d, or the classifier on pixels.

    Raises:
        ModelError: It can't be loaded, or doesn't fit d.
    """
    if kind == "watermark" and source != DEMO:
        path, name, content = open_head(source, kind)
        arrays = read_arrays(path, content)
        if is_classifier(arrays):
            return WatermarkClassifier.from_arrays(name, path, arrays, device)
    return load_head(source, kind, d)


class Scorer:
    """The models of a run; CLIP is loaded when it is first needed."""

    def __init__(self, run: Run, config: Config) -> None:
        self.config = config
        self._encoder: ClipEncoder | None = None
        pool = find_manifest(run.pool)
        ours = clip_parameters(config.clip)
        self.pool_fits = pool is not None and all(
            pool.parameters.get(key) == ours.get(key) for key in ("model", "weights")
        )
        """Whether the pool's embeddings are of the same model, and so need not be made again."""
        self.d = int(pool.facts["d"]) if pool is not None and self.pool_fits else self.encoder.d
        self.heads: dict[Kind, Head] = {}
        self.classifier: WatermarkClassifier | None = None
        """What looks for watermarks on the pixels."""
        for kind, source in head_sources(config.score).items():
            if kind == "watermark" and source == ZERO_SHOT:
                self.heads[kind] = ZeroShotWatermarks.of(self.encoder)
            elif source:
                loaded = load_scorer(source, kind, self.d, device_of(config.clip))
                if isinstance(loaded, WatermarkClassifier):
                    self.classifier = loaded
                else:
                    self.heads[kind] = loaded

    @property
    def encoder(self) -> ClipEncoder:
        """CLIP; loaded on first use, since with the pool's embeddings it may not be needed."""
        if self._encoder is None:
            self._encoder = ClipEncoder.load(self.config.clip)
        return self._encoder

    @property
    def leaves_known_watermarks(self) -> bool:
        """Whether a pool's own pwatermark counts before the score made here: LAION's classifier made it already."""
        return self.classifier is not None or isinstance(self.heads.get("watermark"), ZeroShotWatermarks)

    @property
    def scales(self) -> dict[str, str]:
        """What the numbers of each score mean."""
        scales: dict[str, str] = {kind: head.scale for kind, head in self.heads.items()}
        return scales | ({"watermark": self.classifier.scale} if self.classifier is not None else {})

    def rows(
        self,
        ids: list[int],
        sha256: list[str | None],
        vectors: Vectors,
        watermarks: npt.NDArray[np.float32],
        known: npt.NDArray[np.bool_],
    ) -> pa.Table:
        """Rows of the scores table. Heads see the values as they are stored, in float16.

        Args:
            ids: n pictures.
            sha256: Of their bytes.
            vectors: Shape (n, d), norm 1.
            watermarks: By the classifier, shape (n,); NaN where it was not asked.
            known: Whether the pool says how likely a watermark is, shape (n,).
        """
        stored = vectors.astype(np.float16)
        columns: dict[str, Any] = {
            "id": pa.array(ids, pa.int64()),
            "embedding": list_column(stored, pa.float16()),
        }
        left = known & self.leaves_known_watermarks
        for kind in KINDS:
            head = self.heads.get(kind)
            scores = head.score(stored.astype(np.float32)) if head is not None else None
            name = head.name if head is not None else None
            if kind == "watermark" and self.classifier is not None:
                scores, name = watermarks, self.classifier.name
            unscored = np.full(len(ids), scores is None) | (left if kind == "watermark" else False)
            values = scores if scores is not None else np.zeros(len(ids), dtype=np.float32)
            columns[kind] = pa.array(values, pa.float32(), mask=unscored)
            columns[f"{kind}_model"] = pa.array([None if gone else name for gone in unscored], pa.string())
        columns["sha256"] = pa.array(sha256, pa.string())
        schema = pa.unify_schemas([scores_schema(self.d), SCORED_BYTES])
        return pa.table(columns, schema=schema).cast(self._told(schema))

    def _told(self, schema: pa.Schema) -> pa.Schema:
        """The schema with each score's model and scale written beside its column."""
        names = {kind: head.name for kind, head in self.heads.items()}
        if self.classifier is not None:
            names["watermark"] = self.classifier.name
        for kind, scale in self.scales.items():
            place = schema.get_field_index(kind)
            about = {"model": names[kind], "scale": scale}  # type: ignore[index]
            schema = schema.set(place, schema.field(place).with_metadata(about))
        return schema
