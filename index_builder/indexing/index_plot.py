"""The recall and speed of an index by nprobe, drawn as SVG: a picture that needs no library and loads nothing."""

import html
from collections.abc import Sequence
from math import log2
from typing import Any

_WIDTH, _HEIGHT = 640, 360
_LEFT, _RIGHT, _TOP, _BOTTOM = 60, 70, 56, 48
_COLOURS = {"recall_at_10": "#2f6f9f", "recall_at_100": "#123a57", "queries_per_s": "#b45f06"}


def index_plot(report: dict[str, Any]) -> str:
    """The plot of an index_report.json, as the text of an SVG file.

    Args:
        report: With "search" as `Measured.as_json` has it.
    """
    steps = report["search"]["by_nprobe"]
    title = (
        f"{report['key']}: {report['n']:,} × {report['d']}, {report['bytes_per_vector']:.0f} bytes a vector"
    )
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="20" font-size="14">{html.escape(title)}</text>',
    ]
    if not steps:
        return "\n".join(
            [*parts, f'<text x="{_LEFT}" y="60">nothing to measure: one vector</text>', "</svg>\n"]
        )
    places = _places([step["nprobe"] for step in steps])
    low = min(0.9, *(step["recall_at_10"] for step in steps), *(step["recall_at_100"] for step in steps))
    low = int(low * 20) / 20
    fastest = max(step["queries_per_s"] for step in steps)
    parts += _axes(steps, places, low, fastest)
    wanted = _height((report["search"]["recall_wanted"] - low) / (1 - low))
    parts.append(
        f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{wanted:.1f}" y2="{wanted:.1f}" stroke="#888" '
        'stroke-dasharray="4 3"/>'
    )
    for name, colour in _COLOURS.items():
        values = [
            (step[name] / fastest) if name == "queries_per_s" else (step[name] - low) / (1 - low)
            for step in steps
        ]
        points = [(x, _height(value)) for x, value in zip(places, values, strict=True)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        for (x, y), step in zip(points, steps, strict=True):
            chosen = step["nprobe"] == report["nprobe"]
            candidates = f", over-fetch {step['over_fetch']:g}" if step["over_fetch"] else ""
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{5 if chosen else 3}" fill="{colour}">'
                f"<title>nprobe {step['nprobe']}{candidates}: {step[name]:g}</title></circle>"
            )
    return "\n".join([*parts, *_legend(), "</svg>\n"])


def _places(numbers: Sequence[int]) -> list[float]:
    """Places along the axis, on a logarithmic scale."""
    low, high = log2(max(numbers[0], 1)), log2(max(numbers[-1], 1))
    width = _WIDTH - _LEFT - _RIGHT
    if high == low:
        return [_LEFT + width / 2] * len(numbers)
    return [_LEFT + width * (log2(max(number, 1)) - low) / (high - low) for number in numbers]


def _height(share: float) -> float:
    return _TOP + (_HEIGHT - _TOP - _BOTTOM) * (1 - share)


def _axes(steps: list[dict[str, Any]], places: list[float], low: float, fastest: float) -> list[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    parts = [f'<path d="M{_LEFT},{_TOP} V{bottom} H{right} V{_TOP}" fill="none" stroke="#444"/>']
    for share in (0, 0.25, 0.5, 0.75, 1):
        y = _height(share)
        parts.append(
            f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{low + share * (1 - low):.3g}</text>'
        )
        parts.append(f'<text x="{right + 6}" y="{y + 4:.1f}">{share * fastest:,.0f}</text>')
        parts.append(f'<line x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#eee"/>')
    last = -100.0
    for x, step in zip(places, steps, strict=True):
        if x - last > 24:
            parts.append(f'<text x="{x:.1f}" y="{bottom + 16}" text-anchor="middle">{step["nprobe"]}</text>')
            last = x
    middle = (_LEFT + right) / 2
    parts.append(
        f'<text x="{middle:.0f}" y="{bottom + 36}" text-anchor="middle">nprobe: lists searched</text>'
    )
    return parts


def _legend() -> list[str]:
    names = {"recall_at_10": "recall@10", "recall_at_100": "recall@100", "queries_per_s": "queries/s (right)"}
    parts, x = [], _LEFT
    for name, said in names.items():
        parts.append(f'<rect x="{x}" y="32" width="12" height="12" fill="{_COLOURS[name]}"/>')
        parts.append(f'<text x="{x + 18}" y="42">{said}</text>')
        x += 34 + 7 * len(said)
    parts.append(
        f'<text x="{_WIDTH - 8}" y="42" fill="#666" text-anchor="end">dashed: recall wanted; large: chosen</text>'
    )
    return parts
