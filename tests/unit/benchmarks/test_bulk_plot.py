import xml.etree.ElementTree as ElementTree

from benchmarks.bulk_plot import cost_plot

SVG = "{http://www.w3.org/2000/svg}"


def test_the_plot_is_svg_with_a_line_for_each_way_that_falls_as_costs_do():
    costs = {
        "a, FAISS one by one": {100: 900.0, 10_000: 900.0},
        "a, together": {100: 800.0, 1_000: 200.0, 10_000: 90.0},
    }

    root = ElementTree.fromstring(cost_plot(costs, "1 < 2 & 3"))

    lines = root.findall(f"{SVG}polyline")
    heights = [[float(point.split(",")[1]) for point in line.get("points").split()] for line in lines]
    assert heights[0][0] == heights[0][1], "one price whatever is asked"
    assert heights[1] == sorted(heights[1]), "down the page is cheaper"
    assert len(root.findall(f"{SVG}circle")) == 3
    words = [text.text for text in root.findall(f"{SVG}text")]
    assert "1 < 2 & 3" in words and set(costs) <= set(words)
