"""The columns of every table in a run.

Ids are signed 64-bit. `similarity` is always the kNN's inner product of unit vectors; a pool's own
column of that name is called `alt_txt_similarity` here. `rank` counts from 0, the nearest.
"""

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Vectors = npt.NDArray[np.float32]
"""Rows of float32 vectors, shape (n, d)."""

METADATA = pa.schema(
    [
        ("id", pa.int64()),
        ("url", pa.string()),  # its address, null for a local picture
        ("image_path", pa.string()),  # its place on disk (see spine.sources), null for a web picture
        ("caption", pa.string()),  # alt text or prompt that came with it
        ("key", pa.string()),  # the name its source gives it
        ("width", pa.int32()),  # as measured, or as the source says; after EXIF rotation
        ("height", pa.int32()),
        ("sha256", pa.string()),  # of its bytes, null where only the address is known
        ("alt_txt_similarity", pa.float32()),  # the source's own image-text similarity
        ("aesthetic", pa.float32()),  # the source's own scores, null where it has none
        ("pwatermark", pa.float32()),
        ("punsafe", pa.float32()),
    ]
)
"""concepts/ and pool/ metadata/*.parquet, and index/metadata/*.arrow: row i belongs to vector i."""

STATUSES = pa.schema(
    [
        ("input", pa.string()),  # the picture's place or address in the source
        ("status", pa.string()),  # embedded, duplicate or failed
        ("reason", pa.string()),  # of a failure: of spine.images.REFUSALS or as fetch's; null otherwise
        ("id", pa.int64()),  # its own, or for a duplicate that of the first; null if failed
        ("message", pa.string()),  # what a person needs to know of a failure
    ]
)
"""concepts/ and pool/ statuses/*.parquet: one row an input, so that the counts add up."""


def centroids_schema(d: int) -> pa.Schema:
    """centroids/centroids.parquet: one row a centroid, in order of centroid_id from 0."""
    return pa.schema(
        [
            ("centroid_id", pa.int32()),
            ("embedding", pa.list_(pa.float32(), d)),  # L2 norm 1
            ("size", pa.int64()),  # concept pictures nearest to it
            ("label", pa.string()),
            ("exemplar_ids", pa.list_(pa.int64())),  # its nearest concept pictures, nearest first
            ("inertia_share", pa.float32()),  # its part of the sum of 1 - similarity
            ("map_x", pa.float32()),  # place on the 2-D map, 0 to 1
            ("map_y", pa.float32()),
        ]
    )


NEIGHBOURS = pa.schema(
    [
        ("centroid_id", pa.int32()),
        ("rank", pa.int32()),
        ("id", pa.int64()),
        ("similarity", pa.float32()),
        ("best_centroid", pa.int32()),  # of all that want this picture, the nearest; ties to the lower id
        ("duplicate_of", pa.int64()),  # near-duplicate on stored vectors: the id that stands for it, or null
        *[column for column in METADATA if column.name != "id"],
    ]
)
"""neighbours/part-*.parquet, sorted by centroid_id and rank."""

SEARCHED = pa.schema(
    [
        ("centroid_id", pa.int32()),
        ("lists", pa.int32()),  # inverted lists gone through; null where there are none or a server was asked
        ("found", pa.int32()),  # neighbours listed
        # Share of them that may be selected for this centroid, as far as is known before fetching: they pass [filters]
        # by the pool's values, unknown ones counted as passed, and are no near-duplicates of another and nearest to
        # this centroid. Null where none was found.
        ("expected_yield", pa.float32()),
    ]
)
"""neighbours/searched.parquet: one row a centroid, in order of centroid_id."""

IMAGES = pa.schema(
    [
        ("id", pa.int64()),
        ("status", pa.string()),  # fetched, failed, or rejected: not asked for, by what the pool says of it
        ("reason", pa.string()),  # of a failure as in curation.fetched_images; else the filter
        ("message", pa.string()),
        ("image_path", pa.string()),  # where its bytes are, or those of its small copy: see spine.places
        ("url", pa.string()),
        ("sha256", pa.string()),
        ("width", pa.int32()),  # of the stored picture, after EXIF rotation
        ("height", pa.int32()),
        ("original_width", pa.int32()),  # before any resize
        ("original_height", pa.int32()),
        ("format", pa.string()),  # JPEG, PNG, ...
        ("size_bytes", pa.int64()),
        ("exif", pa.string()),  # JSON
        ("http_status", pa.int32()),
        ("attempts", pa.int32()),
        ("opt_out", pa.string()),  # what its host reserves, "none" if nothing; null where nobody looked
        ("md5", pa.string()),  # of its bytes, for lists that name it so
        ("pdq", pa.string()),  # PDQ hashes of its eight turnings, joined by spaces; null if too flat for one
        # [fetch] mode "two-step": the place of its small copy, or of itself where it is as small; else null. All else
        # is said of the full size, whether that is stored or not.
        ("small_path", pa.string()),
    ]
)
"""images/part-*.parquet: one row a picture within fetch's reach."""

FULL_SIZE = pa.schema([IMAGES.field("id")])
"""images/full-size.parquet: what is to be had in full size, with [fetch] mode "two-step"."""


ASKED = pa.schema([("id", pa.int64()), ("asked", pa.timestamp("ms", "UTC"))])
"""images/asked.parquet: when the address of each download was asked for it, for the last time."""

LINKS = pa.schema(
    [
        ("id", pa.int64()),
        ("url", pa.string()),
        ("asked", pa.timestamp("ms", "UTC")),
        ("status", pa.string()),  # alive, alike, changed or failed: see curation.links.STATUSES
        ("reason", pa.string()),  # of a failure: as in IMAGES
        ("message", pa.string()),
        ("http_status", pa.int32()),
        ("attempts", pa.int32()),
        ("opt_out", pa.string()),  # as in IMAGES, by now
    ]
)
"""links/part-*.parquet: one row a downloaded picture, what its address gave when it was asked again."""


def scores_schema(d: int) -> pa.Schema:
    """scores/part-*.parquet: one row a fetched picture. A score is null where no head was given.

    A model is named by its file and 8 digits of the file's SHA-256. Beside each score's column the file keeps model
    and scale as Arrow metadata.
    """
    return pa.schema(
        [
            ("id", pa.int64()),
            ("embedding", pa.list_(pa.float16(), d)),
            ("aesthetic", pa.float32()),
            ("aesthetic_model", pa.string()),
            ("unsafe", pa.float32()),  # probability, 0 to 1
            ("unsafe_model", pa.string()),
            ("watermark", pa.float32()),  # probability, 0 to 1; null too where the pool says it already
            ("watermark_model", pa.string()),
            ("violence", pa.float32()),  # above 0 is violent
            ("violence_model", pa.string()),
        ]
    )


SCORED_BYTES = pa.schema([("id", pa.int64()), ("sha256", pa.string())])
"""What scores/part-*.parquet hold besides: the bytes that were scored, so that a picture that has changed
under its id is noticed."""

GROUPS = pa.schema(
    [
        ("id", pa.int64()),
        ("group", pa.int64()),  # id of the picture that stands for its group; its own if it has no duplicate
        ("group_size", pa.int32()),
    ]
)
"""scores/groups.parquet: near-duplicates among the fetched pictures themselves."""

POOL_SIMILARITIES = pa.schema(
    [
        ("id", pa.int64()),
        ("similarity", pa.float32()),  # of the fetched picture to the pool's own embedding of it
    ]
)
"""scores/pool-similarities.parquet: one row a download that the pool has an embedding of by the same model."""

EXEMPLARS = pa.schema(
    [
        ("id", pa.int64()),
        ("unsafe", pa.float32()),  # probability, 0 to 1; null where no head was given
        ("unsafe_model", pa.string()),
    ]
)
"""scores/exemplars.parquet: one row a concept picture that stands for a centroid."""

SELECTION = pa.schema(
    [
        ("centroid_id", pa.int32()),
        ("rank", pa.int32()),
        ("id", pa.int64()),
        ("similarity", pa.float32()),
        ("verdict", pa.string()),  # selected or rejected
        ("rule", pa.string()),  # what decided: see spine.filters.RULES
        ("detail", pa.string()),  # the value and the limit, the person, the picture it duplicates
    ]
)
"""selection/selection.parquet: every candidate (a centroid and a picture), in order of both."""

CAPTIONS = pa.schema(
    [
        ("caption_id", pa.string()),  # 32 hex digits over picture, prompt, model, parameters
        ("id", pa.int64()),
        ("status", pa.string()),  # captioned or failed
        ("reason", pa.string()),
        ("message", pa.string()),
        ("caption", pa.string()),  # without the prefix
        ("raw_caption", pa.string()),  # as the model gave it
        ("prefix_found", pa.bool_()),
        ("finish_reason", pa.string()),  # stop or length
        ("tokens", pa.int32()),
        ("words", pa.int32()),
        ("prompt_id", pa.string()),
        ("engine", pa.string()),  # embedded or http
        ("model", pa.string()),
        ("family", pa.string()),  # llava, cogvlm or other: which LAION-POP column it is
        ("attempts", pa.int32()),
        ("truncated", pa.bool_()),  # cut off at the greatest length
        ("repetition", pa.float32()),  # share of 4-grams of words that stood in it before, 0 to 1
        ("speculation", pa.int32()),  # words such as "appears to be", "possibly"
        ("interpretation", pa.int32()),  # words such as "overall", "sense of"
        ("refusal", pa.bool_()),  # says that it can't or won't describe the picture
        ("language", pa.string()),  # ISO 639 code such as en; und where it can't be told
        ("retried_for", pa.string()),  # why it was asked a second time: loop or truncated
        ("other_raw_caption", pa.string()),  # of two tries the one that doesn't stand
        ("captioner", pa.string()),  # 16 hex digits over model, prompt and parameters: who wrote it
        ("take", pa.int32()),  # 0: the likeliest words; from 1 on drawn with this seed, when asked again
        ("clean_caption", pa.string()),  # caption without its sentences of speculation and interpretation
        ("prompt_tokens", pa.int32()),  # of picture and prompt; null where a server doesn't say
    ]
)
"""captions/part-*.parquet: one row a picture, of the captioner that [caption] names; pictures of one content share
their caption id. captions/others/CAPTIONER/part-*.parquet: the same of captioners that were asked before.
captions/takes/part-*.parquet: any number of rows a picture, of whichever captioner it was asked of again.
previews/NAME/part-*.parquet: one row a picture that was chosen for a preview, a captioner a part."""


AGREEMENT = pa.schema(
    [
        ("caption_id", pa.string()),
        ("id", pa.int64()),  # of the picture, or the first of those that share its content
        ("sentences", pa.int32()),
        ("clip_mean", pa.float32()),  # similarity of the sentences to the picture, on average
        ("clip_min", pa.float32()),  # of the sentence that is least like it
        ("worst_sentence", pa.string()),  # which that is
        ("other_id", pa.int64()),  # another picture of the run
        ("clip_other", pa.float32()),  # similarity of the sentences to that one, on average
        ("clip_model", pa.string()),
        ("caption_digest", pa.string()),  # 16 hex digits of the SHA-256 of what was measured
    ]
)
"""captions/agreement.parquet: one row a caption that was measured, of the captioner that [caption] names."""


DATASET = pa.schema(
    [
        # LAION-POP's twelve columns, in its order.
        ("url", pa.string()),
        ("key", pa.string()),
        ("cogvlm_caption", pa.string()),  # null where no such captioner ran
        ("llava_caption", pa.string()),
        ("nsfw_prediction", pa.float32()),  # probability, 0 to 1
        ("alt_txt", pa.string()),
        ("alt_txt_similarity", pa.float32()),
        ("width", pa.int32()),  # of the stored picture
        ("height", pa.int32()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
        ("exif", pa.string()),
        # Ours: why a row is here, and who said what of it.
        ("id", pa.int64()),
        ("caption", pa.string()),  # a curator's where one wrote one
        ("raw_caption", pa.string()),  # as the model gave it
        ("caption_edited_by", pa.string()),  # the curator, null where the model's stands
        ("centroid_id", pa.int32()),
        ("centroid_label", pa.string()),
        ("rank", pa.int32()),
        ("similarity", pa.float32()),
        ("selected_by", pa.string()),  # the curator who kept it, null where the rules did
        ("aesthetic", pa.float32()),
        ("aesthetic_model", pa.string()),  # null: the pool's own score
        ("pwatermark", pa.float32()),
        ("watermark_model", pa.string()),
        ("punsafe", pa.float32()),
        ("punsafe_model", pa.string()),
        ("sha256", pa.string()),
        ("image_path", pa.string()),
        ("caption_id", pa.string()),
        ("caption_model", pa.string()),
        ("prompt_id", pa.string()),
        ("finish_reason", pa.string()),
        ("md5", pa.string()),
        ("pdq", pa.string()),  # as in IMAGES: lists of a later day find the picture by it
        ("opt_out", pa.string()),  # "none": its host was asked and reserves nothing; null: nobody asked
        # Without speculation and interpretation; null where a curator wrote it.
        ("clean_caption", pa.string()),
        ("violence", pa.float32()),  # above 0 is violent
        ("violence_model", pa.string()),
    ]
)
"""release/NAME-VERSION/dataset.parquet, sorted by centroid_id and rank."""


def vectors_of(column: pa.ChunkedArray) -> Vectors:
    """A fixed-size-list column as float32 rows, shape (n, d)."""
    width = column.type.list_size
    chunks = [chunk.flatten().to_numpy(zero_copy_only=False) for chunk in column.chunks]
    flat = np.concatenate(chunks) if chunks else np.empty(0, dtype=np.float32)
    return flat.reshape(-1, width).astype(np.float32)


def list_column(vectors: npt.NDArray[np.floating], kind: pa.DataType) -> pa.FixedSizeListArray:
    """Rows (n, d) as a fixed-size-list array of `kind` (float16 or float32)."""
    dtype = np.float16 if pa.types.is_float16(kind) else np.float32
    flat = np.ascontiguousarray(vectors, dtype=dtype).reshape(-1)
    return pa.FixedSizeListArray.from_arrays(pa.array(flat, type=kind), vectors.shape[1])
