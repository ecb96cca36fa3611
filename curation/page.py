"""The frame of a release's pages: one file that loads nothing else, for light and dark, wide and narrow screens."""

import html
from collections.abc import Sequence

from curation.card import DEMO_WARNING

_STYLE = (
    ":root{color-scheme:light dark;--text:#222;--quiet:#595959;--line:#ddd;--warn:#fff3cd}"
    "@media(prefers-color-scheme:dark){:root{--text:#e6e6e6;--quiet:#a8a8a8;--line:#444;--warn:#4a3b00}"
    "body{background:#161616}}"
    "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em;color:var(--text)}"
    ".warning{background:var(--warn);padding:.8em}"
)


def html_page(title: str, heading: str, style: str, parts: Sequence[str], *, demo_models: bool) -> str:
    """A whole page, under a policy that lets it show pictures it holds itself and nothing else.

    Args:
        title: Of the window, plain text.
        heading: Above all else, plain text.
        style: CSS besides that of every page.
        parts: HTML of the body.
        demo_models: Whether to warn of them.
    """
    warning = [f'<p class="warning">{html.escape(DEMO_WARNING.replace("**", ""))}</p>'] if demo_models else []
    return "\n".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8">',
            '<meta http-equiv="Content-Security-Policy" '
            "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">",
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{html.escape(title)}</title><style>{_STYLE}{style}</style></head><body>",
            f"<h1>{html.escape(heading)}</h1>",
            *warning,
            *parts,
            "</body></html>\n",
        ]
    )
