import pyarrow as pa

from curation.story import why
from spine.publish import publish_table
from spine.run import part_paths
from spine.table_files import read_table
from spine.tables import NEIGHBOURS
from tests.unit.ui.planted import EACH, plant


def test_signs_that_would_steer_a_terminal_or_turn_a_line_are_spelled_out(tmp_path):
    planted = plant(tmp_path / "run")
    for path in part_paths(planted.run.neighbours):
        found = read_table(path, NEIGHBOURS)
        texts = pa.array(["a \x1b[2J clear, a \u202e turn and a Größe 青"] * found.num_rows)
        publish_table(path, found.set_column(found.column_names.index("caption"), "caption", texts))

    told = why(planted.run, planted.ids[EACH])  # of the centroid whose label ends in a turn

    assert "  alt text: a \\x1b[2J clear, a \\u202e turn and a Größe 青" in told
    assert any("\\u202e): rank 0" in line for line in told)
    assert all(line.isprintable() for line in told)
