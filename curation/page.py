"""The frame of a release's pages, with the warning of the models that know drawn scenes alone."""

from collections.abc import Sequence

from curation.card import DEMO_WARNING
from spine.html_page import framed_page


def html_page(title: str, heading: str, style: str, parts: Sequence[str], *, demo_models: bool) -> str:
    """A whole page; see `spine.html_page.framed_page`.

    Args:
        title: Of the window, plain text.
        heading: Above all else, plain text.
        style: CSS besides that of every page.
        parts: HTML of the body.
        demo_models: Whether to warn of them.
    """
    warning = DEMO_WARNING.replace("**", "") if demo_models else ""
    return framed_page(title, heading, style, parts, warning=warning)
