"""The frame of pages in runs and releases: one file that loads nothing, for light and dark, wide and narrow screens."""

import html
from collections.abc import Sequence

_STYLE = (
    ":root{color-scheme:light dark;--text:#222;--quiet:#595959;--line:#ddd;--warn:#fff3cd;"
    "--chart:#f3f5f7;--bar:#2f6f9f;--mark:#dcebf7;--bad:#a02020}"
    "@media(prefers-color-scheme:dark){:root{--text:#e6e6e6;--quiet:#a8a8a8;--line:#444;--warn:#4a3b00;"
    "--chart:#242424;--bar:#5d9fd0;--mark:#1d3d57;--bad:#ff9a90}body{background:#161616}}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:var(--text)}"
    ".warning{background:var(--warn);padding:.8em}"
)


def framed_page(title: str, heading: str, style: str, parts: Sequence[str], *, warning: str = "") -> str:
    """A whole page, under a policy that lets it show pictures it holds itself and nothing else.

    Args:
        title: Of the window, plain text.
        heading: Above all else, plain text.
        style: CSS besides that of every page, which names colours: text, quiet, line, warn, chart, bar, mark, bad.
        parts: HTML of the body.
        warning: Plain text under the heading; empty for none.
    """
    warnings = [f'<p class="warning">{html.escape(warning)}</p>'] if warning else []
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body>",
            f"<h1>{html.escape(heading)}</h1>",
            *warnings,
            *parts,
            "</body></html>\n",
        ]
    )
