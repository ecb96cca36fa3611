"""Weights by name: fetched from a server on loopback, kept, and refused if they are not what they should be."""

import hashlib
import http.server
import threading

import numpy as np
import pytest

from index_builder.scoring import head_files, known_weights
from index_builder.scoring.heads import head_name, load_head, load_rating_vector
from index_builder.scoring.known_weights import KNOWN, RATINGS, Weights, cache_folder, weights_file
from spine.errors import ModelError
from spine.web import Web


@pytest.fixture
def site(monkeypatch, tmp_path):
    """Gives what `files` holds by path; its address, and how often it was asked."""
    files, asked = {}, []

    class Site(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            content = files.get(self.path)
            self.send_response(200 if content is not None else 404)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Site)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    with Web(ports={server.server_port}, allow=("127.0.0.0/8",)) as web:
        yield f"http://127.0.0.1:{server.server_port}", files, asked, web
    server.shutdown()
    thread.join()
    server.server_close()


def known(content, url):
    return Weights(url, hashlib.sha256(content).hexdigest())


def test_weights_are_fetched_once_and_read_like_a_file(tmp_path, site, monkeypatch):
    address, files, asked, web = site
    np.savez(
        tmp_path / "plain.npz", weight=np.array([[1.0, 2.0]], np.float32), bias=np.array([0.5], np.float32)
    )
    content = (tmp_path / "plain.npz").read_bytes()
    files["/a%2Bb.npz"] = content
    monkeypatch.setitem(KNOWN, "laion-x", known(content, f"{address}/a%2Bb.npz"))
    monkeypatch.setattr(head_files, "weights_file", lambda name, weights: weights_file(name, weights, web))

    head = load_head("laion-x", "aesthetic", 2)

    assert head.score(np.array([[1, 1]], np.float32)) == pytest.approx([3.5])
    assert head.name == head_name("laion-x", "aesthetic") == f"a+b-{hashlib.sha256(content).hexdigest()[:8]}"
    load_head("laion-x", "aesthetic")
    assert asked == ["/a%2Bb.npz"]
    (kept,) = cache_folder().iterdir()
    kept.write_bytes(b"bit rot")
    assert load_head("laion-x", "aesthetic").score(np.zeros((1, 2), np.float32)) == pytest.approx([0.5])
    assert len(asked) == 2


def test_other_bytes_than_the_known_ones_are_never_taken(site):
    address, files, _, web = site
    files["/head.pth"] = b"something else"

    with pytest.raises(
        ModelError, match="gave SHA-256 .* was needed; get http.*/head.pth and put it at"
    ) as caught:
        weights_file("laion-x", known(b"the real one", f"{address}/head.pth"), web)
    assert "\n" not in str(caught.value)
    assert not cache_folder().exists()


def test_without_a_network_one_line_says_which_file_to_put_where(site):
    address, _, _, web = site
    weights = known(b"content", f"{address}/gone.pth")

    with pytest.raises(
        ModelError, match="laion-x: its weights are not here and can't be fetched .gone.; get "
    ) as caught:
        weights_file("laion-x", weights, web)
    path = cache_folder() / f"{weights.sha256[:16]}-gone.pth"
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"content")
    assert weights_file("laion-x", weights, web) == path


def test_the_known_files_are_laions_own(reference, monkeypatch, tmp_path):
    """Placed in the cache by hand, each of them is read as what it is."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_folder().mkdir(parents=True)
    by_digest = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path
        for path in (reference / "laion-heads").rglob("*")
        if path.is_file()
    }
    for weights in [*KNOWN.values(), *(each for every in RATINGS.values() for each in every)]:
        path = cache_folder() / f"{weights.sha256[:16]}-{weights.file}"
        path.write_bytes(by_digest[weights.sha256].read_bytes())
        assert weights.url.startswith("https://")
    kinds = {"aesthetic": "aesthetic", "nsfw": "unsafe", "violence": "violence"}
    d = {"l14": 768, "b32": 512, "b16": 512}

    for name in KNOWN:
        words = name.split("-")
        assert load_head(name, kinds[words[1]], d[words[-1]]).name == head_name(name, kinds[words[1]])
    for name in RATINGS:
        rises = [load_rating_vector(name, rating, d[name[-3:]]) for rating in range(10)]
        head = load_head(f"laion-aesthetic-v1-{name[-3:]}", "aesthetic")
        assert (np.diff(head.score(np.stack(rises))) > 0).all()
    assert max(path.stat().st_size for path in by_digest.values()) < known_weights._LARGEST
