"""Croissant metadata: the dataset's file and columns for machines.

Source: MLCommons, "Croissant format specification", version 1.0.
"""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from curation.columns import MEANINGS
from curation.tars import FOLDER as TARS
from spine.tables import DATASET

_CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}


def croissant(
    *,
    name: str,
    version: str,
    licence: str,
    description: str,
    parquet_sha256: str,
    parquet_bytes: int,
    tars: Sequence[tuple[str, str, int]] = (),
) -> dict[str, Any]:
    """The metadata as JSON-LD.

    Args:
        name: Of the dataset.
        version: Of the dataset.
        licence: In words or as an address.
        description: One sentence.
        parquet_sha256: Of dataset.parquet, in hex.
        parquet_bytes: Its size.
        tars: Name, SHA-256 and size of each WebDataset tar.
    """
    return {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": name,
        "version": _semantic(version),
        "description": description,
        "license": licence,
        "distribution": [
            {
                "@type": "cr:FileObject",
                "@id": "dataset.parquet",
                "name": "dataset.parquet",
                "contentUrl": "dataset.parquet",
                "contentSize": f"{parquet_bytes} B",
                "encodingFormat": "application/x-parquet",
                "sha256": parquet_sha256,
            },
            *(_tar(*each) for each in tars),
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": "rows",
                "name": "rows",
                # A picture may stand in two rows, where two concepts may have it.
                "key": [{"@id": "rows/centroid_id"}, {"@id": "rows/id"}],
                "field": [_field(column) for column in DATASET],
            }
        ],
    }


def _semantic(version: str) -> str:
    """A version as Semantic Versioning writes it where it has a revision: 1.0+2 is 1.0.0+2."""
    number, plus, revision = version.partition("+")
    parts = number.split(".")
    if not plus or len(parts) >= 3 or not all(part.isdecimal() for part in parts):
        return version
    return ".".join([*parts, "0", "0"][:3]) + plus + revision


def _tar(name: str, sha256: str, size_bytes: int) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": f"{TARS}/{name}",
        "name": name,
        "contentUrl": f"{TARS}/{name}",
        "contentSize": f"{size_bytes} B",
        "encodingFormat": "application/x-tar",
        "sha256": sha256,
    }


def _field(column: pa.Field) -> dict[str, Any]:
    return {
        "@type": "cr:Field",
        "@id": f"rows/{column.name}",
        "name": column.name,
        "description": MEANINGS[column.name],
        "dataType": _data_type(column.type),
        "source": {"fileObject": {"@id": "dataset.parquet"}, "extract": {"column": column.name}},
    }


def _data_type(kind: pa.DataType) -> str:
    if pa.types.is_integer(kind):
        return "sc:Integer"
    return "sc:Float" if pa.types.is_floating(kind) else "sc:Text"
