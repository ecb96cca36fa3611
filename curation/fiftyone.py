"""fiftyone.csv: the dataset's rows whose pictures are plain files, for FiftyOne's CSV importer.

Source: Voxel51, FiftyOne, `fiftyone.utils.csv.CSVDatasetImporter`: a column `filepath`, and one a field.
"""

import csv
import io

import pyarrow as pa

from spine.places import split_place

FIELDS = (
    *("id", "key", "url", "centroid_id", "centroid_label", "rank", "similarity"),
    *("caption", "alt_txt", "width", "height", "aesthetic", "pwatermark", "punsafe", "sha256"),
)
"""Columns beside filepath."""


def fiftyone_csv(table: pa.Table) -> str:
    """The file's text.

    Args:
        table: The dataset. A picture inside a tar or Parquet file is no file of its own: its row is left out.
    """
    text = io.StringIO()
    lines = csv.writer(text, lineterminator="\n")
    lines.writerow(["filepath", *FIELDS])
    for row in table.select(["image_path", *FIELDS]).to_pylist():
        path, parts = split_place(row.pop("image_path"))
        if not parts:
            lines.writerow([path, *("" if value is None else value for value in row.values())])
    return text.getvalue()
