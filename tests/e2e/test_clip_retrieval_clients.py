"""clip-retrieval 2.45's own clients against our server: its ClipClient, and its web page in a real browser."""

import contextlib
import functools
import importlib.util
import json
import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import ModuleType

import faiss
import httpx
import numpy as np
import pyarrow as pa
import pytest
from playwright.sync_api import Browser, Request, expect

from index_builder.encoding.clip import DEMO_CLIP, ClipEncoder
from index_builder.metadata.metadata_rows import write_metadata
from popfactory.demo_drawing import draw
from popfactory.demo_world import caption, random_scene
from spine.settings import ClipConfig
from tests.peer.servers import running_ours

N, SEEN_AT_ONCE = 120, 40
WAIT_MS = 20_000


@dataclass(frozen=True)
class Page:
    """clip-retrieval's page on a port of its own, as its front alone serves it, with the pool's pictures."""

    address: str
    server: str
    """Ours."""
    vectors: np.ndarray


@pytest.fixture(scope="module")
def wheel(root: Path) -> Path:
    """clip-retrieval's wheel, unpacked by scripts/set_up_venv.sh."""
    folder = root / ".venv" / "clip-retrieval-2.45.0"
    if not folder.is_dir():
        missing = f"{folder} is missing; scripts/set_up_venv.sh puts it there"
        pytest.fail(missing) if os.environ.get("CI") == "true" else pytest.skip(missing)
    return folder


@pytest.fixture(scope="module")
def encoder() -> ClipEncoder:
    if not DEMO_CLIP.is_dir():
        pytest.skip("the demo model is not there")
    return ClipEncoder.load(ClipConfig(model="demo", pretrained="", device="cpu"))


@pytest.fixture(scope="module")
def page(wheel: Path, encoder: ClipEncoder, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("front")
    site = folder / "site"
    site.mkdir()
    for path in (wheel / "front" / "build").iterdir():
        if path.name != "config.json":
            (site / path.name).symlink_to(path)
    generator = np.random.default_rng(3)
    scenes = [random_scene(generator) for _ in range(N)]
    pictures = [draw(scene, 96, 96) for scene in scenes]
    vectors = encoder.encode_images(np.stack([encoder.preprocess(picture) for picture in pictures]))
    with _static(site) as address:
        for row, picture in enumerate(pictures):
            picture.save(site / f"{row}.png")
        (folder / "pool").mkdir()
        index = faiss.IndexFlatIP(vectors.shape[1])
        index.add(vectors)
        faiss.write_index(index, str(folder / "pool" / "image.index"))
        columns = {
            "url": [f"{address}/{row}.png" for row in range(N)],
            "caption": [caption(scene) for scene in scenes],
            "hash": [2**62 + row for row in range(N)],
        }
        write_metadata(folder / "pool" / "metadata" / "0.arrow", pa.table(columns))
        entry = {"indice_folder": "pool", "clip_model": "demo", "columns_to_return": list(columns)}
        (folder / "indices_paths.json").write_text(json.dumps({"drawn": entry, "again": entry}))
        with running_ours(folder / "indices_paths.json", "--allow-origin", address) as server:
            backend = str(server.http.base_url).rstrip("/")
            config = {"defaultBackend": backend, "defaultIndex": "drawn", "urlColumn": "url"}
            (site / "config.json").write_text(json.dumps(config))
            yield Page(address, backend, vectors)


@contextlib.contextmanager
def _static(folder: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture(scope="module")
def clip_client(wheel: Path) -> ModuleType:
    """clip_retrieval.clip_client by its file: the package around it imports a server."""
    spec = importlib.util.spec_from_file_location("clip_client", wheel / "clip_retrieval" / "clip_client.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_clip_client_finds_by_text_picture_and_embedding(clip_client, page, encoder, tmp_path):
    settings = {"aesthetic_score": "", "aesthetic_weight": "", "deduplicate": False, "num_images": 10}
    client = clip_client.ClipClient(url=f"{page.server}/knn-service", indice_name="drawn", **settings)
    embedded = encoder.encode_texts(["a red star"])[0]
    nearest = np.argsort(-(page.vectors @ embedded), kind="stable")[:10].tolist()
    assert [result["id"] for result in client.query(text="a red star")] == nearest
    assert [result["id"] for result in client.query(embedding_input=embedded.tolist())] == nearest
    generator = np.random.default_rng(3)
    draw(random_scene(generator), 96, 96).save(tmp_path / "0.png")
    [first, *_] = client.query(image=str(tmp_path / "0.png"))
    assert (first["id"], first["url"]) == (0, f"{page.address}/0.png")
    assert first["similarity"] == pytest.approx(1, abs=1e-4)


def test_clip_client_works_as_it_comes(clip_client, page):
    """With its defaults, which ask for filters and ratings that are not there."""
    results = clip_client.ClipClient(url=f"{page.server}/knn-service", indice_name="drawn").query(
        text="a red star"
    )
    assert 0 < len(results) <= SEEN_AT_ONCE
    assert all({"id", "similarity", "url", "caption"} <= set(result) for result in results)


def test_clip_retrievals_page_searches_scrolls_and_searches_again_by_picture(
    page, encoder, chromium: Browser, tmp_path
):
    picture = tmp_path / "again.png"
    picture.write_bytes(httpx.get(f"{page.address}/7.png").content)
    tab = chromium.new_page(viewport={"width": 900, "height": 500})
    errors: list[str] = []
    asked: list[Request] = []
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.on("requestfinished", lambda request: asked.append(request))  # noqa: PLW0108  # Playwright marks it
    tab.goto(page.address)
    options = tab.locator("#filter select").first.locator("option")
    expect(options).to_have_text(["drawn", "again"], timeout=WAIT_MS)
    text = "three blue circles"
    tab.locator("#searchBar").fill(text)
    tab.locator("#textSearch").click()
    first = int(np.argmax(page.vectors @ encoder.encode_texts([text])[0]))
    # Its defaults deduplicate and pull towards a rating that is not served: the nearest stays the nearest.
    shown = tab.locator("#products .pic")
    expect(shown.first).to_have_attribute("src", f"{page.address}/{first}.png", timeout=WAIT_MS)
    assert shown.first.evaluate("picture => picture.decode().then(() => picture.naturalWidth)") == 96
    posted = [request for request in asked if request.url.endswith("/knn-service")]
    assert posted[-1].response().status == 200
    for _ in range(40):
        if any(request.url.endswith("/metadata") for request in asked):
            break
        tab.mouse.move(450, 300)
        tab.mouse.wheel(0, 4000)
        tab.evaluate("window.scrollTo(0, document.body.scrollHeight)")
        tab.wait_for_timeout(100)
    more = [request for request in asked if request.url.endswith("/metadata")]
    assert more and more[0].response().status == 200
    assert len(more[0].response().json()) > 0
    tab.locator("#filechooser").set_input_files(picture)
    expect(shown.first).to_have_attribute("src", f"{page.address}/7.png", timeout=WAIT_MS)
    assert errors == []
    tab.close()
