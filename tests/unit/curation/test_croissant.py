"""Croissant metadata against a file that mlcroissant 1.1.1 accepts (it only recommends a citation and a date)."""

import json
from pathlib import Path

from curation.croissant import croissant

GOLDEN = Path(__file__).resolve().parents[2] / "data" / "croissant.json"


def test_the_metadata_is_what_mlcroissant_accepted():
    content = croissant(
        name="pop",
        version="1.0+1",
        licence="metadata: Apache-2.0",
        description="6 pictures with captions.",
        parquet_sha256="0f" * 32,
        parquet_bytes=12345,
        tars=[("00000.tar", "1e" * 32, 678)],
    )

    assert content == json.loads(GOLDEN.read_text())
