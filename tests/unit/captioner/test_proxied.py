import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from captioner import answers, lanes
from captioner.engine import Reply
from captioner.http import HttpEngine
from captioner.proxied import needs_proxy
from spine.errors import ServiceError
from spine.prompts import PROMPTS
from tests.unit.captioner.runs import noise
from tests.unit.captioner.test_http import completion, setup_of

ENDPOINT = "http://captions.test/v1"
"""No such host: only a proxy gets there."""


@pytest.fixture
def proxy(monkeypatch):
    """A proxy that the environment names; its first answer is 500, and what it was asked is in `asked`."""
    for name in (
        "no_proxy",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "HTTPS_PROXY",
        "ALL_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)
    asked = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            self.answer(200, {"data": [{"id": "tiny-llava"}]})

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            asked.append((self.path, self.headers["authorization"], body["max_tokens"]))
            self.answer(500 if len(asked) == 1 else 200, completion())

        def answer(self, status, said):
            content = json.dumps(said).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(answers, "MAX_PAUSE_S", 0.02)
    monkeypatch.setattr(lanes, "LONGEST_REST_S", 0.02)
    yield server, asked
    server.shutdown()
    server.server_close()


def test_a_server_behind_a_proxy_is_asked_through_it(proxy, monkeypatch):
    monkeypatch.setenv("CAPTION_API_KEY", "sk-secret-1")
    _, asked = proxy
    engine = HttpEngine(setup_of(ENDPOINT, in_flight=2, api_key_env="CAPTION_API_KEY"))

    replies = engine.describe([noise(seed) for seed in range(5)], PROMPTS["laion-pop"], 8)

    engine.close()
    assert [(each.text, each.prompt_tokens) for each in replies if isinstance(each, Reply)] == [
        ("a star", 700)
    ] * 5
    assert asked == [(f"{ENDPOINT}/chat/completions", "Bearer sk-secret-1", 8)] * 6, "one of them twice"


def test_a_proxy_that_goes_stops_the_work(proxy):
    server, _ = proxy
    engine = HttpEngine(setup_of(ENDPOINT))
    server.shutdown()
    server.server_close()

    with pytest.raises(ServiceError, match="can't be reached"):
        engine.describe([noise(0)], PROMPTS["laion-pop"], 8)
    engine.close()


def test_no_proxy_is_between_here_and_this_machine_nor_where_the_environment_says_so(proxy, monkeypatch):
    assert needs_proxy(ENDPOINT)
    assert not needs_proxy("https://captions.test/v1"), "there is one for http alone"
    assert not needs_proxy("http://127.0.0.1:8000/v1") and not needs_proxy("http://[::1]:8000/v1")
    monkeypatch.setenv("NO_PROXY", "captions.test")
    assert not needs_proxy(ENDPOINT)
