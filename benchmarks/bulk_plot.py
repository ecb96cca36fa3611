"""The cost of a centroid by how many are asked together, as SVG: a picture that needs no library."""

import html
from math import log10

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 640, 360, 64, 24, 44, 84
_COLOURS = ("#b45f06", "#2f6f9f", "#7a4a8c", "#3b7d3b", "#888888")


def cost_plot(costs: dict[str, dict[int, float]], title: str) -> str:
    """Lines on logarithmic axes.

    Args:
        costs: By name of the line: microseconds of CPU a centroid, by how many were asked together.
        title: What it was measured on.
    """
    numbers = [number for line in costs.values() for number in line]
    values = [value for line in costs.values() for value in line.values()]
    low, high = log10(min(values)) - 0.1, log10(max(values)) + 0.1
    left, right = log10(min(numbers)), log10(max(numbers))

    def place(number: float, value: float) -> tuple[float, float]:
        x = _LEFT + (log10(number) - left) / (right - left) * (_WIDTH - _LEFT - _RIGHT)
        return x, _TOP + (high - log10(value)) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{_HEIGHT}"'
        f' viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="system-ui, sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="18" font-size="14">CPU a centroid, microseconds</text>',
        f'<text x="{_LEFT}" y="34" fill="#555">{html.escape(title)}</text>',
    ]
    for value in (mark * 10**power for power in range(1, 5) for mark in (1, 2, 5)):
        if low <= log10(value) <= high:
            _, y = place(1e2, value)
            parts.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="#ddd"/>'
            )
            parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:,}</text>')
    for number in sorted(set(numbers)):
        x, _ = place(number, max(values))
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{number:,}</text>')
    parts.append(
        f'<text x="{_WIDTH / 2}" y="{_HEIGHT - _BOTTOM + 36}" text-anchor="middle">centroids asked together</text>'
    )
    for place_in_legend, ((name, line), colour) in enumerate(zip(costs.items(), _COLOURS, strict=False)):
        points = [place(number, value) for number, value in line.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = ' stroke-dasharray="5 4"' if "one by one" in name else ""
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        if not dash:
            parts += [
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"><title>{value:,.0f}</title></circle>'
                for (x, y), value in zip(points, line.values(), strict=True)
            ]
        x, y = _LEFT + place_in_legend % 2 * 280, _HEIGHT - 26 + place_in_legend // 2 * 18
        parts.append(
            f'<line x1="{x}" x2="{x + 24}" y1="{y - 4}" y2="{y - 4}" stroke="{colour}" stroke-width="2"{dash}/>'
        )
        parts.append(f'<text x="{x + 30}" y="{y}">{html.escape(name)}</text>')
    return "\n".join([*parts, "</svg>\n"])
