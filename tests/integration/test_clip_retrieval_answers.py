"""The answers that clip-retrieval 2.45 gave, given again by our server over the same folders.

tests/data/clip_retrieval holds small indices, what was asked and what clip-retrieval answered;
`python -m tests.peer PEER_PYTHON record` draws and records it anew.
"""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pyarrow.parquet as pq
import pytest

from retrieval_server.settings import load_indices_paths
from tests.integration.server_index import running
from tests.peer.cases import Case, Defect, defects
from tests.peer.comparison import difference
from tests.peer.indices import INDICES, lay_out, stored_vectors

DATA = Path(__file__).parents[1] / "data" / "clip_retrieval"
D = 16
ANSWERS = pq.read_table(DATA / "answers.parquet").to_pylist()


@pytest.fixture(scope="module")
def http(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    indices = lay_out(DATA, tmp_path_factory.mktemp("clip-retrieval") / "indices")
    with (
        running(load_indices_paths(indices)) as address,
        httpx.Client(base_url=address, timeout=60) as client,
    ):
        yield client


@pytest.mark.parametrize("index", [*INDICES, "text"])
def test_every_answer_is_clip_retrievals(http, index):
    vectors = stored_vectors(DATA)[index]
    asked = [row for row in ANSWERS if row["index"] == index]
    swapped = results = 0
    for row in asked:
        case = Case(row["route"], index, json.loads(row["body"]))
        theirs, ours = json.loads(row["answer"]), http.post(case.route, json=case.body).json()
        words, equals = difference(case, theirs, ours, vectors)
        assert not words, f"{case}: {words}"
        swapped, results = swapped + equals, results + len(theirs)
    assert len(asked) >= (6 if index == "text" else 40)
    assert results > 500 or index == "text"
    # Rows of the very same vector come by row number here, in no order there.
    assert swapped < 0.05 * results


def test_the_filters_of_the_recorded_questions_drop_and_the_ratings_move(http):
    """Else the comparison would hold for a server that ignores them."""
    plain = next(row for row in ANSWERS if row["index"] == "hnsw" and '"deduplicate": false' in row["body"])
    body = json.loads(plain["body"])
    lengths = {
        flag: len(http.post("/knn-service", json=body | {flag: True}).json())
        for flag in ("deduplicate", "use_safety_model", "use_violence_detector")
    }
    everything = http.post("/knn-service", json=body).json()
    assert all(0 < length < len(everything) for length in lengths.values()), lengths
    moved = http.post("/knn-service", json=body | {"aesthetic_score": 9, "aesthetic_weight": 0.5}).json()
    assert [row["id"] for row in moved] != [row["id"] for row in everything]


def test_the_indices_are_listed_alike(http):
    [listed] = [row["answer"] for row in ANSWERS if row["route"] == "/indices-list"]
    assert http.get("/indices-list").json() == json.loads(listed)


@pytest.mark.parametrize("defect", defects(INDICES, D), ids=lambda defect: defect.why)
def test_what_clip_retrieval_gets_wrong_is_right_here(http, defect: Defect):
    answer = http.post(defect.route, json=defect.body)
    assert answer.status_code == defect.ours
    assert (answer.json()["code"] if defect.ours != 200 else "") == defect.code


def test_a_column_that_clip_retrieval_hides_comes_under_another_name(http):
    [result] = http.post("/metadata", json={"ids": [9], "indice_name": "flat"}).json()
    body = {"embedding_input": [0.25] * D, "num_images": 1, "indice_name": "flat", "modality": "text"}
    [found] = http.post("/knn-service", json=body).json()
    [own] = http.post("/metadata", json={"ids": [found["id"]], "indice_name": "flat"}).json()
    assert found["alt_txt_similarity"] == own["metadata"]["similarity"] != found["similarity"]
    assert result["metadata"]["alt_txt_similarity"] == result["metadata"]["similarity"]
