"""clip-retrieval 2.45 beside our server: the same folders, the same questions.

python -m tests.peer PEER_PYTHON            ask both at once and compare, and ask both with ClipClient
python -m tests.peer PEER_PYTHON record     draw the data of tests/data/clip_retrieval, keep its answers
"""

import base64
import io
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from spine.protocol import RetrievalClient
from tests.peer.cases import Case, cases, defects
from tests.peer.comparison import difference
from tests.peer.indices import INDICES, draw, lay_out, stored_vectors
from tests.peer.servers import ROOT, running_ours, running_peer

DATA = ROOT / "tests" / "data" / "clip_retrieval"
CLIENTS: tuple[dict[str, Any], ...] = (
    {},  # as it comes: aesthetic 9, deduplicate, safety and violence
    {"aesthetic_score": "", "aesthetic_weight": "", "deduplicate": False},
    {"aesthetic_score": 5, "num_images": 7, "use_safety_model": False, "use_violence_detector": False},
)


def main() -> None:
    """Record, or compare."""
    peer = sys.argv[1]
    with tempfile.TemporaryDirectory() as temporary:
        if sys.argv[2:] == ["record"]:
            draw(DATA, n=800, d=16)
            record(peer, Path(temporary))
        else:
            sys.exit(compare(peer, Path(temporary)))


def record(peer: str, temporary: Path) -> None:
    """Keep what clip-retrieval answers."""
    queries = np.load(DATA / "vectors.npz")["queries"]
    asked = list(cases(INDICES, n=800, queries=queries, words=[]))
    with running_peer(peer, lay_out(DATA, temporary / "indices")) as server:
        http = server.http
        answers = [http.post(case.route, json=case.body) for case in asked]
        listed = http.get("/indices-list").text
        for defect in defects(INDICES, d=16):
            status = http.post(defect.route, json=defect.body).status_code
            assert status == defect.theirs, f"{defect.why}: {status}, {defect.theirs} was expected"
    for case, answer in zip(asked, answers, strict=True):
        assert answer.status_code == 200, f"{case}: {answer.text}"
    table = pa.table(
        {
            "route": [case.route for case in asked] + ["/indices-list"],
            "index": [case.index for case in asked] + [""],
            "body": [json.dumps(case.body) for case in asked] + [""],
            "answer": [answer.text for answer in answers] + [listed],
        }
    )
    pq.write_table(table, DATA / "answers.parquet", compression="zstd", compression_level=19)
    print(f"{table.num_rows} answers of clip-retrieval in {DATA}")


def compare(peer: str, temporary: Path) -> int:
    """Ask both; the number of differences."""
    n, d = 3000, 128
    draw(temporary / "data", n, d, seed=3)
    queries = np.load(temporary / "data" / "vectors.npz")["queries"]
    picture = drawn_picture()
    words: list[dict[str, Any]] = [
        {"text": "a red star on a beach"},
        {"image": base64.b64encode(picture).decode()},
    ]
    vectors = stored_vectors(temporary / "data")
    indices = lay_out(temporary / "data", temporary / "indices", clip_model="demo")
    wrong = asked = swapped = 0
    with running_peer(peer, indices) as peer_server, running_ours(indices) as our_server:
        theirs, ours = peer_server.http, our_server.http
        for case in cases(INDICES, n, queries, words):
            a, b = (http.post(case.route, json=case.body) for http in (theirs, ours))
            words_, equals = difference(case, a.json(), b.json(), vectors[case.index])
            asked, swapped = asked + 1, swapped + equals
            if words_:
                wrong += 1
                shown = {
                    key: value for key, value in case.body.items() if key not in ("embedding_input", "image")
                }
                print(f"DIFFERENT {case.route} {json.dumps(shown)}: {words_}")
        for defect in defects(INDICES, d):
            statuses = [http.post(defect.route, json=defect.body).status_code for http in (theirs, ours)]
            asked += 1
            if statuses != [defect.theirs, defect.ours]:
                wrong += 1
                print(f"DIFFERENT {defect.why}: {statuses}, {[defect.theirs, defect.ours]} was expected")
        if theirs.get("/indices-list").json() != ours.get("/indices-list").json():
            wrong += 1
            print("DIFFERENT /indices-list")
        (temporary / "picture.png").write_bytes(picture)
        wrong += compare_batches(theirs, ours, queries)
        more, count = compare_clients(peer, theirs, ours, queries, temporary / "picture.png", vectors)
    print(
        f"{asked} requests and {count} queries of ClipClient, {wrong + more} different; "
        f"{swapped} results stand for another row of the same vector"
    )
    return wrong + more


def compare_batches(theirs: httpx.Client, ours: httpx.Client, queries: np.ndarray) -> int:
    """Our client's bulk query against both: one request a query there, the batch route here; indices that differ."""
    wrong = 0
    for index in INDICES:
        found = []
        for http in (theirs, ours):
            with RetrievalClient(str(http.base_url)) as client:
                found.append(client.knn_batch(queries, 30, index=index))
        a, b = found
        near = a.num_rows == b.num_rows and np.allclose(
            a.column("similarity"), b.column("similarity"), atol=1e-5
        )
        # Of a hair's difference in similarity the one may put first what the other puts second.
        rows = [
            set(zip(*table.select(["query", "row", "url"]).to_pydict().values(), strict=True))
            for table in found
        ]
        missing = len(rows[0] ^ rows[1]) / max(1, len(rows[0]))
        if not near or missing > 0.005:
            wrong += 1
            print(
                f"DIFFERENT knn_batch {index}: {a.num_rows} and {b.num_rows} rows, {missing:.2%} in one alone"
            )
    return wrong


def compare_clients(
    peer: str,
    theirs: httpx.Client,
    ours: httpx.Client,
    queries: np.ndarray,
    picture: Path,
    vectors: dict[str, np.ndarray],
) -> tuple[int, int]:
    """clip-retrieval's own client against both: differences, and queries asked."""
    asked: list[dict[str, Any]] = [
        {"client": options | {"indice_name": index}, "query": query}
        for index in INDICES
        for options in CLIENTS
        for query in (
            {"text": "two blue rings"},
            {"image": str(picture)},
            {"embedding_input": queries[0].tolist()},
        )
    ]
    asked.append({"client": {"indice_name": "flat", "modality": "text"}, "query": {"text": "a green tree"}})
    lines = "".join(json.dumps(each) + "\n" for each in asked)
    answers = []
    for http in (theirs, ours):
        command = [peer, str(ROOT / "tests/peer/peer_server.py"), "client", f"{http.base_url}/knn-service"]
        command[3] = command[3].replace("//knn", "/knn")
        done = subprocess.run(command, input=lines, capture_output=True, text=True, check=True)
        answers.append([json.loads(line) for line in done.stdout.splitlines() if line.startswith(("[", "{"))])
    wrong = 0
    for each, a, b in zip(asked, *answers, strict=True):
        name = "text" if each["client"].get("modality") == "text" else each["client"]["indice_name"]
        words, _ = difference(Case("/knn-service", name, {}), a, b, vectors[name])
        if words:
            wrong += 1
            print(f"DIFFERENT ClipClient {each['client']} {list(each['query'])}: {words}")
    return wrong, len(asked)


def drawn_picture() -> bytes:
    """A PNG of a red disc."""
    picture = Image.new("RGB", (240, 180), (235, 225, 200))
    ImageDraw.Draw(picture).ellipse((60, 30, 180, 150), fill=(200, 30, 40))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
