"""clip-retrieval 2.45 beside our server: the same folders, the same questions.

python -m tests.peer PEER_PYTHON            ask both at once and compare, and ask both with ClipClient
python -m tests.peer PEER_PYTHON record     draw the data of tests/data/clip_retrieval, keep its answers
"""

import base64
import contextlib
import io
import json
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from tests.peer.cases import Case, cases, defects
from tests.peer.comparison import difference
from tests.peer.indices import INDICES, draw, lay_out, stored_vectors

ROOT = Path(__file__).resolve().parents[2]
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
    with running_peer(peer, lay_out(DATA, temporary / "indices")) as http:
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
    with running_peer(peer, indices) as theirs, running_ours(indices) as ours:
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
        more, count = compare_clients(peer, theirs, ours, queries, temporary / "picture.png", vectors)
    print(
        f"{asked} requests and {count} queries of ClipClient, {wrong + more} different; "
        f"{swapped} results stand for another row of the same vector"
    )
    return wrong + more


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


@contextlib.contextmanager
def running_peer(peer: str, indices: Path) -> Iterator[httpx.Client]:
    """clip-retrieval's back end over these indices."""
    port = free_port()
    command = [peer, str(ROOT / "tests/peer/peer_server.py"), str(indices), str(port)]
    log = indices.parent / "peer.log"
    with log.open("w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env=os.environ | {"OMP_NUM_THREADS": "2"}
        )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120, trust_env=False) as http:
            deadline = time.monotonic() + 180
            while True:
                try:
                    http.get("/indices-list")
                    break
                except httpx.ConnectError:
                    if process.poll() is not None or time.monotonic() > deadline:
                        raise SystemExit(
                            f"clip-retrieval did not start:\n{log.read_text()[-3000:]}"
                        ) from None
                    time.sleep(0.2)
            yield http
    finally:
        process.kill()
        process.wait(30)


@contextlib.contextmanager
def running_ours(indices: Path) -> Iterator[httpx.Client]:
    """Our server over these indices, by the command."""
    command = [
        sys.executable,
        "-m",
        "popfactory",
        "serve",
        "--indices",
        str(indices),
        "--port",
        str(free_port()),
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if found := re.search(r"serving on (http://\S+)", line):
                break
            print(line, end="")
        else:
            raise SystemExit("our server did not start")
        with httpx.Client(base_url=found[1], timeout=120, trust_env=False) as http:
            yield http
    finally:
        process.terminate()
        process.wait(30)


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def drawn_picture() -> bytes:
    """A PNG of a red disc."""
    picture = Image.new("RGB", (240, 180), (235, 225, 200))
    ImageDraw.Draw(picture).ellipse((60, 30, 180, 150), fill=(200, 30, 40))
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


if __name__ == "__main__":
    main()
