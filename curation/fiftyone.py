"""fiftyone.csv: the dataset's rows whose pictures are plain files, for FiftyOne's CSV importer.

`id` is named `picture_id` there: FiftyOne gives every sample an `id` of its own, and drops a column of that name
without a word.

Source: Voxel51, FiftyOne, `fiftyone.utils.csv.CSVDatasetImporter`: a column `filepath`, and one a field.
"""

import csv
import io

import pyarrow as pa

from spine.places import split_place

_COLUMNS = (
    *("id", "key", "url", "centroid_id", "centroid_label", "rank", "similarity", "selected_by"),
    *("caption", "alt_txt", "width", "height", "aesthetic", "pwatermark", "punsafe", "violence", "sha256"),
)
FIELDS = ("picture_id", *_COLUMNS[1:])
"""Columns beside filepath."""


def fiftyone_csv(table: pa.Table) -> str:
    """The file's text.

    Args:
        table: The dataset. A picture inside a tar or Parquet file is no file of its own: its row is left out.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["filepath", *FIELDS])
    for batch in table.select(["image_path", *_COLUMNS]).to_batches(max_chunksize=10_000):
        for path, *values in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            place, parts = split_place(path)
            if not parts:
                lines.writerow([place, *("" if value is None else value for value in values)])
    return text.getvalue()
