"""samples.html: some of the dataset's pictures with their captions, in one file that loads nothing else."""

import base64
import html
import os
import random
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa

from curation.opening import Openers
from curation.page import html_page
from spine.errors import ImageError
from spine.filters import UNSAFE
from spine.images import thumbnail
from spine.refused import Refused
from spine.sources import read_bytes

SAMPLES = 100
"""Rows on the page at most, as on LAION-POP's own page of samples."""

_SIDE_PX = 256
_COLUMNS = ("image_path", "caption", "centroid_id", "centroid_label", "width", "height", "punsafe", "alt_txt")
_STYLE = (
    "article{display:flex;flex-wrap:wrap;gap:.4em 1.2em;border-top:1px solid var(--line);padding:1em 0}"
    "figure{margin:0;flex:0 0 256px}article>div{flex:1 1 16em}img{max-width:256px;border-radius:4px}"
    "article p{margin:.2em 0;overflow-wrap:anywhere}.about{color:var(--quiet);font-size:13px}"
)


def samples_page(table: pa.Table, title: str, demo_models: bool) -> str:
    """Up to SAMPLES rows at random, always the same for the same rows.

    Every text is escaped, there is no script, and pictures are small re-encoded ones inside the page.

    Args:
        table: The dataset.
        title: Its name and version.
        demo_models: Whether to warn of them.
    """
    chosen = sorted(random.Random(0).sample(range(table.num_rows), min(SAMPLES, table.num_rows)))
    rows = table.select(list(_COLUMNS)).take(pa.array(chosen, pa.int64())).to_pylist()
    articles = [_article(row, picture) for row, picture in zip(rows, _pictures(rows), strict=True)]
    about = (
        f"<p>{len(rows):,} of {table.num_rows:,} rows, chosen at random. Pictures that are probably unsafe, or "
        "that nothing is known of, are blurred.</p>"
    )
    return html_page(f"{title}: samples", title, _STYLE, [about, *articles], demo_models=demo_models)


def _pictures(rows: Sequence[dict[str, Any]]) -> list[bytes | None]:
    """A small WebP of each; None where it can't be read any more."""
    workers = min(os.cpu_count() or 1, 1 + len(rows) // 8)  # a process costs more than a few thumbnails
    with Openers(workers) as openers, ThreadPoolExecutor(workers, thread_name_prefix="samples") as threads:

        def small(row: dict[str, Any]) -> bytes | Refused:
            return openers.ask(row["image_path"], small_picture, row["image_path"], _blurs(row))

        return [None if isinstance(each, Refused) else each for each in threads.map(small, rows)]


def small_picture(place: str, blurred: bool) -> bytes | Refused:
    """The thumbnail of what lies at a place; in a worker."""
    try:
        return thumbnail(read_bytes(place), _SIDE_PX, blurred=blurred)
    except ImageError as error:
        return Refused(error.reason, str(error))


def _blurs(row: dict[str, Any]) -> bool:
    return row["punsafe"] is None or not row["punsafe"] <= UNSAFE


def _article(row: dict[str, Any], picture: bytes | None) -> str:
    if picture is None:
        figure = "<figure><p>no picture here any more</p></figure>"
    else:
        data = base64.b64encode(picture).decode()
        figure = f'<figure><img alt="" src="data:image/webp;base64,{data}"></figure>'
    label = row["centroid_label"] or ""
    about = f"centroid {row['centroid_id']} {label} · {row['width']} × {row['height']}"
    alt_txt = f'<p class="about">alt text: {html.escape(row["alt_txt"])}</p>' if row["alt_txt"] else ""
    return (
        f"<article>{figure}<div><p>{html.escape(row['caption'])}</p>"
        f'<p class="about">{html.escape(about)}</p>{alt_txt}</div></article>'
    )
