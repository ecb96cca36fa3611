import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from spine.tables import NEIGHBOURS
from ui.neighbour_groups import NeighbourGroups


@pytest.mark.parametrize("statistics", [True, False])
def test_a_centroids_rows_are_found_over_parts_and_row_groups_as_by_plain_filtering(tmp_path, statistics):
    generator = np.random.default_rng(4)
    centroid = np.sort(generator.integers(0, 40, 1_000))
    rows = [
        {"centroid_id": int(each), "rank": int(generator.integers(0, 10**6)), "id": number, "similarity": 0.5}
        for number, each in enumerate(centroid)
        if each != 17
    ]
    table = pa.Table.from_pylist(rows, schema=NEIGHBOURS)
    paths = [tmp_path / f"part-{number}.parquet" for number in range(3)]
    for number, path in enumerate(paths):
        part = table.slice(number * 340, 340)
        pq.write_table(part, path, row_group_size=70, write_statistics=statistics, write_page_checksum=True)

    groups = NeighbourGroups(paths)

    for wanted in [*range(42), -1, 17]:
        expected = table.filter(pc.equal(table.column("centroid_id"), wanted)).sort_by("rank")
        assert groups.of(wanted).equals(expected), wanted
    assert NeighbourGroups([]).of(3).num_rows == 0
