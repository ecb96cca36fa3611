"""Charts: well-formed SVG whose bars and curves stand where their values are."""

import xml.etree.ElementTree as ET

import pytest

from curation.charts import HEIGHT, bars, curves

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>"&'


def test_bars_are_as_high_as_their_values_and_text_is_escaped():
    chart = ET.fromstring(bars("Shares", ["a", HOSTILE], {"one": [0.25, 1.0], HOSTILE: [0.5, None]}))
    drawn = [rect for rect in chart.iter(f"{SVG}rect") if rect.find(f"{SVG}title") is not None]
    heights = [float(rect.get("height")) for rect in drawn]

    assert len(drawn) == 3
    assert [each / heights[2] for each in heights] == pytest.approx([0.25, 0.5, 1.0], abs=0.01)
    titles = [rect.find(f"{SVG}title").text for rect in drawn]
    assert titles == ["one, a: 0.250", f"{HOSTILE}, a: 0.500", f"one, {HOSTILE}: 1.000"]
    assert [text.text for text in chart.iter(f"{SVG}text")].count(HOSTILE) == 2


def test_curves_go_through_the_middles_of_their_bins():
    chart = ET.fromstring(curves("Likeness", "similarity", [0.0, 0.5, 1.0], {"x": [0.2, 0.8]}))
    (line,) = chart.iter(f"{SVG}polyline")
    points = [tuple(map(float, pair.split(","))) for pair in line.get("points").split()]

    assert points[0][0] < points[1][0]
    assert points[1][1] < points[0][1] < HEIGHT
