"""Two kinds of charts as SVG inside a page: groups of bars, and curves. They load nothing and need no library."""

import html
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 680, 300
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#555555")
"""Of the series, told apart with any eyes; more series begin again."""

_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 20, 44, 40


def bars(title: str, groups: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """Groups of bars over an axis from 0 to 1.

    Args:
        title: What is shown.
        groups: Names along the axis.
        series: For each name a value of 0 to 1 for each group; None leaves a gap.
    """
    parts = [*_frame(title, list(series), "share"), *_steps([0.0, 0.25, 0.5, 0.75, 1.0], 0.0, 1.0)]
    wide = (WIDTH - _LEFT - _RIGHT) / max(len(groups), 1)
    bar = 0.8 * wide / max(len(series), 1)
    for number, group in enumerate(groups):
        left = _LEFT + number * wide + 0.1 * wide
        parts.append(_text(left + 0.4 * wide, HEIGHT - _BOTTOM + 18, group, "middle"))
        for place, (name, values) in enumerate(series.items()):
            value = values[number]
            if value is None:
                continue
            top = _height(value, 0.0, 1.0)
            parts.append(
                f'<rect x="{left + place * bar:.1f}" y="{top:.1f}" width="{0.92 * bar:.1f}" '
                f'height="{HEIGHT - _BOTTOM - top:.1f}" fill="{COLOURS[place % len(COLOURS)]}">'
                f"<title>{html.escape(f'{name}, {group}: {value:.3f}')}</title></rect>"
            )
    return "\n".join([*parts, "</svg>"])


def curves(title: str, along: str, edges: Sequence[float], series: Mapping[str, Sequence[float]]) -> str:
    """Histograms as curves over common bins.

    Args:
        title: What is shown.
        along: What the horizontal axis is.
        edges: Of the bins, ascending, one more than there are bins.
        series: For each name the share of each bin, 0 to 1.
    """
    high = max((max(values, default=0.0) for values in series.values()), default=0.0) or 1.0
    parts = [*_frame(title, list(series), "share"), *_steps([0.0, high / 2, high], 0.0, high)]
    low, end = edges[0], edges[-1]
    span = (end - low) or 1.0
    inner = WIDTH - _LEFT - _RIGHT

    def across(value: float) -> float:
        return _LEFT + inner * (value - low) / span

    for value in (low, low + span / 2, end):
        parts.append(_text(across(value), HEIGHT - _BOTTOM + 16, f"{value:.2f}", "middle"))
    parts.append(_text(_LEFT + inner / 2, HEIGHT - 6, along, "middle"))
    for place, (name, values) in enumerate(series.items()):
        middles = ((edges[bin_] + edges[bin_ + 1]) / 2 for bin_ in range(len(values)))
        points = " ".join(
            f"{across(at):.1f},{_height(value, 0.0, high):.1f}"
            for at, value in zip(middles, values, strict=True)
        )
        dashes = "" if place < len(COLOURS) else ' stroke-dasharray="5 3"'
        parts.append(
            f'<polyline points="{points}" fill="none" stroke="{COLOURS[place % len(COLOURS)]}" '
            f'stroke-width="2"{dashes}><title>{html.escape(name)}</title></polyline>'
        )
    return "\n".join([*parts, "</svg>"])


def _frame(title: str, names: Sequence[str], unit: str) -> list[str]:
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" width="{WIDTH}" height="{HEIGHT}" '
        f'viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f"<title>{html.escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        _text(_LEFT, 16, f"{title} ({unit})", "start"),
    ]
    left = float(_LEFT)
    for place, name in enumerate(names):
        colour = COLOURS[place % len(COLOURS)]
        parts.append(f'<rect x="{left:.0f}" y="24" width="10" height="10" fill="{colour}"/>')
        parts.append(_text(left + 14, 33, name, "start"))
        left += 24 + 6.4 * len(name)
    return parts


def _steps(values: Sequence[float], low: float, high: float) -> list[str]:
    parts = []
    for value in values:
        y = _height(value, low, high)
        parts.append(f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#dddddd"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{value:.2g}", "end"))
    return parts


def _height(value: float, low: float, high: float) -> float:
    share = min(max((value - low) / (high - low), 0.0), 1.0)
    return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{html.escape(text)}</text>'
