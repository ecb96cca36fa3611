"""The http engine over a true socket: against the small server on a true model, and against servers that misbehave."""

import asyncio
import base64
import contextlib
import hashlib
import io
import json
import socket
import threading
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import numpy as np
import pytest
import uvicorn
from PIL import Image

from captioner import answers, http, lanes
from captioner.captions import caption
from captioner.embedded import EmbeddedEngine, EmbeddedSetup
from captioner.engine import CaptionFailure, Reply, Sampling
from captioner.http import HttpEngine, HttpSetup
from captioner.lanes import PROBES_TO_GIVE_UP
from captioner.pictures import blank_picture
from captioner.previews import preview
from captioner.sending import data_url
from captioner.serving import create_app
from captioner.takes import retake
from spine.config import load_config, write_config
from spine.errors import ConfigError, ServiceError
from spine.lists import LOOK_EVERY_S
from spine.manifest import MANIFEST
from spine.prompts import PROMPTS
from spine.run import part_paths
from spine.settings import CaptionConfig, ListsConfig
from spine.table_files import read_parts, read_table
from spine.tables import CAPTIONS
from tests.unit.captioner.runs import noise, picture_id

LAION = PROMPTS["laion-pop"]
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def server(tiny_llava):
    """The address of the small server over the tiny model."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        setup = EmbeddedSetup.of(CaptionConfig(model=str(tiny_llava), device="cpu"))
        served = uvicorn.Server(uvicorn.Config(create_app(setup), log_level="error"))
        thread = threading.Thread(target=served.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while not served.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        served.should_exit = True
        thread.join()


def setup_of(*addresses, **settings):
    chosen = {"model": "tiny-llava", "in_flight": 4} | settings
    return HttpSetup.of(CaptionConfig(engine="http", endpoints=addresses, **chosen))


def completion(text="a star", finish="stop", tokens=2):
    return {
        "choices": [{"message": {"content": text}, "finish_reason": finish}],
        "usage": {"prompt_tokens": 700, "completion_tokens": tokens},
    }


@pytest.fixture
def misbehaving(monkeypatch):
    """Starts servers that answer each request with what `script(request body, its number)` says.

    An answer is (status, headers, bytes); None breaks the connection off.
    """
    monkeypatch.setattr(answers, "MAX_PAUSE_S", 0.02)
    monkeypatch.setattr(lanes, "LONGEST_REST_S", 0.02)
    servers = []

    def start(script):
        state = {"n": 0, "now": 0, "most": 0, "bodies": [], "keys": set()}
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.answer(200, {}, json.dumps({"data": [{"id": "tiny-llava"}]}).encode())

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with lock:
                    number, state["n"] = state["n"], state["n"] + 1
                    state["now"] += 1
                    state["most"] = max(state["most"], state["now"])
                    state["bodies"].append(body)
                    state["keys"].add(self.headers["authorization"])
                try:
                    answer = script(body, number)
                finally:
                    with lock:
                        state["now"] -= 1
                if answer is None:
                    self.close_connection = True
                    self.connection.shutdown(socket.SHUT_RDWR)
                else:
                    self.answer(*answer)

            def answer(self, status, headers, content):
                self.send_response(status)
                for name, value in {"content-length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(content)

            def log_message(self, *_):
                pass

        running = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        running.daemon_threads = True
        threading.Thread(target=running.serve_forever, daemon=True).start()
        servers.append(running)
        state["server"] = running
        return f"http://127.0.0.1:{running.server_port}", state

    yield start
    for running in servers:
        running.shutdown()
        running.server_close()


def good(*_):
    return 200, {}, json.dumps(completion()).encode()


def described(address, n=1, **settings):
    engine = HttpEngine(setup_of(address, **settings))
    try:
        return engine.describe([noise(seed) for seed in range(n)], LAION, 8)
    finally:
        engine.close()


def test_over_http_the_model_says_what_it_says_embedded(server, tiny_llava):
    images = [noise(seed) for seed in range(6)]
    engine = HttpEngine(setup_of(server))

    replies = engine.describe(images, LAION, 8)

    engine.close()
    sent = [Image.open(io.BytesIO(base64.b64decode(data_url(image).partition(",")[2]))) for image in images]
    embedded = EmbeddedEngine.load(CaptionConfig(model=str(tiny_llava), device="cpu"))
    assert replies == embedded.describe(sent, LAION, 8)
    assert len({reply.text for reply in replies}) > 2


def test_drawn_words_are_those_of_the_seed_over_http_and_embedded_in_any_company(server, tiny_llava):
    images = [noise(seed) for seed in range(3)]
    engine = HttpEngine(setup_of(server))

    first, again, other = (engine.describe(images, LAION, 8, sampling=Sampling(seed)) for seed in (1, 1, 2))

    engine.close()
    sent = [Image.open(io.BytesIO(base64.b64decode(data_url(image).partition(",")[2]))) for image in images]
    embedded = EmbeddedEngine.load(CaptionConfig(model=str(tiny_llava), device="cpu"))
    assert first == again == embedded.describe(sent, LAION, 8, sampling=Sampling(1))
    assert first[2:] == embedded.describe(sent[2:], LAION, 8, sampling=Sampling(1))
    assert first != other and first != embedded.describe(sent, LAION, 8)


def test_a_run_over_http_captions_every_picture(server, make_run, pictures):
    run = make_run(
        pictures, engine="http", endpoints=(server, f"{server}/v1/"), model="tiny-llava", in_flight=2
    )

    manifest = caption(run)

    rows = read_parts(run.captions, CAPTIONS).to_pylist()
    assert {row["id"] for row in rows} == {picture_id(file) for file in pictures}
    assert {(row["engine"], row["model"], row["family"]) for row in rows} == {("http", "tiny-llava", "llava")}
    assert manifest.counts["captioned"] == 7
    assert caption(run) == manifest


@pytest.fixture
def listed_while_asked(misbehaving, make_run, pictures):
    """A run of seven pictures whose server calls `change(run)` when the first of them is put to it."""

    def begin(change):
        def script(_, number):
            if number == 1:  # before it the blank picture was asked
                change(run)
                time.sleep(LOOK_EVERY_S * 1.2)
            return good()

        address, state = misbehaving(script)
        run = make_run(pictures, engine="http", endpoints=(address,), model="tiny-llava", in_flight=1)
        (run.folder / "gone.txt").write_text("")
        (run.folder / "hashes.txt").write_text("")
        lists = ListsConfig(takedown=("gone.txt",), hash_block=("hashes.txt",))
        write_config(run.config, replace(load_config(run.config), lists=lists))
        return run, state

    return begin


def test_a_picture_that_is_listed_while_others_are_captioned_goes_to_no_engine(listed_while_asked, pictures):
    files = sorted(pictures, key=picture_id)

    def change(run):
        (run.folder / "gone.txt").write_text(f"{picture_id(files[6])}\n")
        (run.folder / "hashes.txt").write_text(hashlib.sha256(files[4].read_bytes()).hexdigest())

    run, state = listed_while_asked(change)

    manifest = caption(run)

    found = {row["id"]: row for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    assert [found[picture_id(file)]["reason"] for file in files] == [
        *[None] * 4,
        "hash_block",
        None,
        "takedown",
    ]
    assert state["n"] == 1 + 5, "the blank one and five pictures"
    assert (manifest.counts["captioned"], manifest.counts["failed"]) == (5, 2)
    (run.folder / "gone.txt").write_text("")
    (run.folder / "hashes.txt").write_text("")
    assert caption(run, failed_only=True).counts["captioned"] == 7
    assert state["n"] == 1 + 7


@pytest.mark.parametrize("again", [False, True], ids=["preview", "retake"])
def test_a_picture_that_is_listed_meanwhile_has_no_part_in_a_preview_or_another_caption(
    listed_while_asked, pictures, again
):
    files = sorted(pictures, key=picture_id)
    change = {"now": False}

    def listed(run):
        if change["now"]:
            (run.folder / "gone.txt").write_text(f"{picture_id(files[0])}\n{picture_id(files[6])}\n")

    run, state = listed_while_asked(listed)
    if again:
        caption(run)
    state["n"], change["now"] = 1, True  # the next that is asked about is the first
    if again:
        manifest = retake(run, [picture_id(file) for file in files])
        rows = [
            row for path in part_paths(run.caption_takes) for row in read_table(path, CAPTIONS).to_pylist()
        ]
        assert (manifest.counts["captioned"], manifest.counts["failed_takedown"]) == (5, 2)
    else:
        preview(run, 7)
        rows = [
            row
            for path in run.caption_previews.rglob("part-*.parquet")
            for row in read_table(path, CAPTIONS).to_pylist()
            if row["status"] == "captioned"
        ]
        (page,) = run.caption_previews.rglob("page.html")
        assert page.read_text().count("<img") == 5
    assert {row["id"] for row in rows} == {picture_id(file) for file in files[1:6]}


def test_a_list_that_becomes_unreadable_stops_captioning_which_then_goes_on(listed_while_asked):
    run, state = listed_while_asked(lambda run: (run.folder / "gone.txt").unlink())

    with pytest.raises(ConfigError, match=r"gone\.txt: can't be read") as stopped:
        caption(run)

    assert "\n" not in str(stopped.value) and not (run.captions / MANIFEST).exists()
    assert state["n"] <= 1 + 4, "what was under way"
    (run.folder / "gone.txt").write_text("")
    assert caption(run).counts["captioned"] == 7


def test_a_picture_goes_as_bytes_after_which_the_verbatim_prompt(misbehaving):
    address, state = misbehaving(good)

    described(address)

    [body] = state["bodies"]
    picture, text = body["messages"][0]["content"]
    assert text == {"type": "text", "text": LAION.text}
    assert picture["image_url"]["url"].startswith("data:image/jpeg;base64,")
    assert (body["temperature"], body["max_tokens"], body["model"]) == (0, 8, "tiny-llava")


def test_a_large_picture_is_sent_small_and_in_its_shape():
    content = base64.b64decode(data_url(Image.new("RGB", (2000, 1400), (200, 30, 90))).partition(",")[2])
    sent = Image.open(io.BytesIO(content))

    assert sent.format == "JPEG" and sent.size == (1440, 1008)
    assert np.abs(np.asarray(sent).reshape(-1, 3).mean(0) - (200, 30, 90)).max() < 3


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_server_is_given_time_and_that_is_no_failed_attempt(misbehaving, status):
    address, state = misbehaving(lambda _, n: (status, {"retry-after": "0"}, b"") if n < 9 else good())

    assert described(address) == [Reply("a star", "stop", 2, attempts=1, prompt_tokens=700)]
    assert state["n"] == 10


@pytest.mark.parametrize(
    "fault", [(500, {}, b"oops"), (200, {}, b"<html>"), (200, {}, b'{"choices": []}'), None]
)
def test_a_fault_is_tried_again(misbehaving, fault):
    address, _ = misbehaving(lambda _, n: fault if n < 2 else good())

    assert described(address) == [Reply("a star", "stop", 2, attempts=3, prompt_tokens=700)]


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ((500, {}, b"oops"), "server_error"),
        ((200, {"content-length": "99", "connection": "close"}, b'{"choi'), "server_error"),
        (None, "server_error"),
        ((200, {}, b"{"), "bad_reply"),
        ((200, {}, b'{"choices": [{"message": {"content": null}, "finish_reason": "stop"}]}'), "bad_reply"),
        ((200, {}, b" " * (2 << 20)), "bad_reply"),
        ((200, {}, json.dumps(completion("half a \ud800")).encode()), "bad_reply"),
        *(
            ((200, {}, json.dumps(completion(tokens=told)).encode()), "bad_reply")
            for told in (-1, 1 << 40, True)
        ),
    ],
)
def test_a_fault_that_stays_fails_the_picture_alone(misbehaving, fault, reason):
    poisoned = data_url(noise(1))

    def script(body, _):
        return fault if body["messages"][0]["content"][0]["image_url"]["url"] == poisoned else good()

    address, _ = misbehaving(script)

    first, second, third = described(address, 3)

    assert isinstance(second, CaptionFailure)
    assert (second.reason, second.attempts) == (reason, http.MAX_ATTEMPTS)
    assert first == third == Reply("a star", "stop", 2, prompt_tokens=700)


def test_a_server_that_hangs_fails_the_picture_alone(misbehaving, monkeypatch):
    monkeypatch.setattr(http, "REQUEST_TIMEOUT_S", 0.5)
    monkeypatch.setattr(http, "MAX_ATTEMPTS", 2)
    poisoned = data_url(noise(1))
    released = threading.Event()

    def script(body, _):
        if body["messages"][0]["content"][0]["image_url"]["url"] == poisoned:
            released.wait(10)
        return good()

    address, _ = misbehaving(script)

    outcomes = described(address, 3)
    released.set()

    assert [getattr(outcome, "reason", "good") for outcome in outcomes] == ["good", "timeout", "good"]


def test_a_refused_picture_is_not_sent_again(misbehaving):
    address, state = misbehaving(lambda *_: (400, {}, b'{"error": "image too odd"}'))

    [failure] = described(address)

    assert (failure.reason, failure.attempts, state["n"]) == ("refused", 1, 1)
    assert "image too odd" in failure.message


def test_an_answer_that_was_filtered_is_a_refusal(misbehaving):
    answer = json.dumps(completion(finish="content_filter")).encode()
    address, _ = misbehaving(lambda *_: (200, {}, answer))

    assert described(address)[0].reason == "refused"


def test_no_more_requests_are_in_flight_than_allowed(misbehaving):
    def slow(*_):
        time.sleep(0.02)
        return good()

    address, state = misbehaving(slow)

    described(address, 40, in_flight=3)

    assert state["n"] == 40 and 1 < state["most"] <= 3


def test_work_goes_to_every_endpoint(misbehaving):
    def slow(*_):
        time.sleep(0.02)
        return good()

    (one, first), (two, second) = misbehaving(slow), misbehaving(slow)
    engine = HttpEngine(setup_of(one, two))

    engine.describe([noise(seed) for seed in range(24)], LAION, 8)

    engine.close()
    assert first["n"] + second["n"] == 24
    assert min(first["n"], second["n"]) >= 6
    assert max(first["most"], second["most"]) <= 4


def test_what_concerns_every_picture_stops_the_run(misbehaving):
    address, state = misbehaving(lambda *_: (401, {}, b"no key"))

    with pytest.raises(ServiceError, match="401: no key"):
        described(address, 3)
    assert state["n"] <= 4


def test_no_server_or_another_model_is_said_before_any_work(server, make_run, pictures):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{taken.getsockname()[1]}"
        run = make_run(pictures, engine="http", endpoints=(address,), model="tiny-llava")
        with pytest.raises(ServiceError, match="start the server"):
            caption(run)
    assert not (run.captions / MANIFEST).exists()

    with pytest.raises(ServiceError, match="'other': .* has tiny-llava"):
        setup_of(server, model="other").load()


def test_a_server_that_dies_stops_the_work_instead_of_failing_every_picture(misbehaving):
    dead = threading.Event()
    address, state = misbehaving(lambda *_: None if dead.is_set() else good())
    engine = HttpEngine(setup_of(address))
    assert engine.describe([noise(0)], LAION, 8) == [Reply("a star", "stop", 2, prompt_tokens=700)]
    dead.set()
    state["server"].shutdown()
    state["server"].server_close()

    many = [noise(seed) for seed in range(40)]
    with pytest.raises(ServiceError, match="can't be reached"):
        engine.describe(many, LAION, 8)
    [lane] = engine._lanes.all
    engine.close()
    assert lane.failures <= 4 + PROBES_TO_GIVE_UP, "the more wait for it, the longer it would take otherwise"


def test_a_server_that_is_gone_is_left_alone_and_the_other_does_the_work(misbehaving):
    first, state = misbehaving(lambda *_: None)  # breaks off what connections it has
    second, other = misbehaving(good)
    engine = HttpEngine(setup_of(first, second))
    state["server"].shutdown()
    state["server"].server_close()

    replies = engine.describe([noise(seed) for seed in range(30)], LAION, 8)

    engine.close()
    assert [reply.text for reply in replies] == ["a star"] * 30
    assert other["n"] == 30


def test_a_server_that_fails_on_everything_is_left_alone_and_the_other_does_the_work(
    misbehaving, monkeypatch
):
    monkeypatch.setattr(lanes, "LONGEST_REST_S", 60)
    broken, state = misbehaving(lambda *_: (500, {}, b"oops"))
    sound, other = misbehaving(good)
    engine = HttpEngine(setup_of(broken, sound))

    replies = engine.describe([noise(seed) for seed in range(60)], LAION, 8)

    engine.close()
    assert [reply.text for reply in replies] == ["a star"] * 60
    assert other["n"] == 60
    assert lanes.FAILURES_TO_CLOSE <= state["n"] < 30


GARBAGE = (200, {}, b"<html>")
OOPS = (500, {}, b"oops")


@pytest.mark.parametrize(
    ("answer", "said"),
    [(OOPS, "answers 500: oops"), (GARBAGE, "no chat completion: <html>"), (None, "broke off")],
)
def test_a_server_that_answers_nothing_well_stops_the_run_which_then_goes_on(
    misbehaving, make_run, pictures, answer, said
):
    mended = threading.Event()
    address, state = misbehaving(lambda *_: good() if mended.is_set() else answer)
    run = make_run(pictures, engine="http", endpoints=(address,), model="tiny-llava", in_flight=1)

    with pytest.raises(ServiceError, match=r"in a row\); set the servers right") as stop:
        caption(run)

    assert address in str(stop.value) and said in str(stop.value) and "\n" not in str(stop.value)
    assert state["n"] <= 40, "else 7 pictures would have been asked for 5 times each, besides probes"
    assert not (run.captions / MANIFEST).exists()
    mended.set()
    counts = caption(run, failed_only=True).counts
    assert counts["captioned"] + counts.get("missing", 0) == 7 and counts["failed"] == 0
    assert caption(run).counts["captioned"] == 7


def test_who_asks_while_the_engine_closes_is_told_so_and_does_not_wait_for_ever(misbehaving):
    asked, over, told = threading.Event(), threading.Event(), []

    def script(*_):
        asked.set()
        over.wait(30)
        return good()

    address, _ = misbehaving(script)
    engine = HttpEngine(setup_of(address))

    def ask():
        with pytest.raises(RuntimeError) as error:
            engine.describe([noise(0)], LAION, 8)
        told.append(str(error.value))

    late = threading.Thread(target=ask, daemon=True)

    async def last_to_go():
        try:
            await asyncio.Event().wait()
        finally:  # the engine gives up what is being asked, and only now somebody asks
            late.start()
            while late.is_alive() and not asked.is_set():
                await asyncio.sleep(0.001)

    asyncio.run_coroutine_threadsafe(last_to_go(), engine._loop)

    engine.close()

    late.join(10)
    over.set()
    assert told == ["the connections to the caption servers are closed"]


def test_a_server_that_refuses_every_picture_stops_the_run_too(misbehaving):
    address, state = misbehaving(lambda *_: (400, {}, b"context too short"))

    with pytest.raises(ServiceError, match="answers 400: context too short .* failures in a row"):
        described(address, 60)
    assert state["n"] < 30


def test_the_line_names_each_server_and_what_it_answered(misbehaving):
    (one, _), (two, _) = misbehaving(lambda *_: OOPS), misbehaving(lambda *_: GARBAGE)
    engine = HttpEngine(setup_of(one, two))

    with pytest.raises(ServiceError) as stop:
        engine.describe([noise(seed) for seed in range(40)], LAION, 8)

    engine.close()
    assert f"{one}/v1: answers 500: oops" in str(stop.value)
    assert f"{two}/v1: no chat completion" in str(stop.value)


def test_bad_pictures_alone_never_stop_the_run_for_the_server_still_knows_a_good_one(misbehaving):
    blank = data_url(blank_picture())

    def script(body, _):
        return good() if body["messages"][0]["content"][0]["image_url"]["url"] == blank else OOPS

    address, state = misbehaving(script)

    outcomes = described(address, 30)

    assert [(each.reason, each.attempts) for each in outcomes] == [("server_error", http.MAX_ATTEMPTS)] * 30
    assert state["n"] > 30 * http.MAX_ATTEMPTS, "probes come on top"


def test_a_server_that_recovers_within_the_rests_costs_no_picture(misbehaving):
    last = lanes.FAILURES_TO_CLOSE + PROBES_TO_GIVE_UP - 2  # one probe more may fail
    address, state = misbehaving(lambda _, n: OOPS if n <= last else good())

    replies = described(address, 30)

    assert [reply.text for reply in replies] == ["a star"] * 30
    assert state["n"] > 30 + last


def test_a_server_that_fails_a_probe_for_being_busy_is_not_given_up(misbehaving):
    def script(_, n):
        return OOPS if n < lanes.FAILURES_TO_CLOSE else (503, {}, b"") if n < 30 else good()

    address, _ = misbehaving(script)

    assert [reply.text for reply in described(address, 3)] == ["a star"] * 3


def test_what_failed_before_the_servers_did_has_its_row_and_reason(misbehaving, make_run, pictures):
    by_id = sorted((picture_id(file), data_url(noise(number))) for number, file in enumerate(pictures))
    poisoned, last_straw, broken = by_id[0], by_id[5], threading.Event()  # of the first and the third batch

    def script(body, _):
        url = body["messages"][0]["content"][0]["image_url"]["url"]
        if url == last_straw[1]:
            broken.set()
        return GARBAGE if broken.is_set() else OOPS if url == poisoned[1] else good()

    address, _ = misbehaving(script)
    run = make_run(pictures, engine="http", endpoints=(address,), model="tiny-llava", in_flight=1)

    with pytest.raises(ServiceError, match="no chat completion"):
        caption(run)

    rows = {row["id"]: row for row in read_parts(run.captions, CAPTIONS).to_pylist()}
    assert rows[poisoned[0]]["reason"] == "server_error" and "500: oops" in rows[poisoned[0]]["message"]
    assert last_straw[0] not in rows
    address, _ = misbehaving(good)
    make_run(pictures, engine="http", endpoints=(address,), model="tiny-llava", in_flight=1)  # the same run
    assert caption(run).counts["failed"] == 1
    assert caption(run, failed_only=True).counts["captioned"] == 7


def test_the_key_comes_from_the_environment_and_is_nowhere_to_be_read(misbehaving, monkeypatch):
    monkeypatch.setenv("CAPTION_API_KEY", "sk-secret-1")
    address, state = misbehaving(lambda _, n: (400, {}, b"wrong: sk-secret-1") if n else good())
    setup = setup_of(address, api_key_env="CAPTION_API_KEY")
    engine = setup.load()

    replies = engine.describe([noise(0), noise(1)], LAION, 8)

    engine.close()
    assert state["keys"] == {"Bearer sk-secret-1"}
    [failure] = [reply for reply in replies if isinstance(reply, CaptionFailure)]
    assert failure.message.endswith("wrong: ***")
    assert "sk-secret" not in repr(setup) + repr(replies)
    assert setup.fingerprint == setup_of(address).fingerprint


@pytest.mark.parametrize("named", ["sk-secret-1", "Bearer sk-secret-1", "CAPTION_API_KEY_NOT_SET"])
def test_a_key_in_the_settings_or_one_that_is_missing_is_refused_without_printing_it(named):
    with pytest.raises(ConfigError, match="api_key_env") as refusal:
        setup_of("http://a", api_key_env=named)
    assert "sk-secret" not in str(refusal.value)


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "ftp://a/v1", "", "http://"])
def test_an_endpoint_that_is_no_address_is_a_wrong_setting(address):
    with pytest.raises(ConfigError, match="is no address"):
        setup_of(address)


def test_endpoints_may_be_given_with_or_without_their_path():
    forms = ["http://a:8000", "http://a:8000/", "http://a:8000/v1", "http://a:8000/v1/chat/completions"]

    assert {setup_of(form).endpoints for form in forms} == {("http://a:8000/v1",)}
    assert setup_of(*forms).endpoints == ("http://a:8000/v1",), "one server, however often it is named"
    assert setup_of("https://a/llm/v1").endpoints == ("https://a/llm/v1",)


def test_family_and_demo_are_known_by_name():
    assert setup_of("http://a", model="llava-hf/llava-1.5-13b-hf").family == "llava"
    assert setup_of("http://a", model="THUDM/cogvlm-chat-hf").family == "cogvlm"
    assert setup_of("http://a", model="qwen").family == "other"
    assert setup_of("http://a", model="demo-llava").is_demo
    assert setup_of("http://a", model="m", revision="r").name == "m@r"


def request(**changes):
    parts = [
        {"type": "image_url", "image_url": {"url": data_url(noise(0))}},
        {"type": "text", "text": "What is it?"},
    ]
    body = {"model": "tiny-llava", "max_tokens": 4, "messages": [{"role": "user", "content": parts}]}
    return body | changes


def with_picture(url):
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What is it?"}]
    return request(messages=[{"role": "user", "content": parts}])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (request(model="gpt"), "'tiny-llava' alone"),
        (request(max_tokens=0), "max_tokens"),
        (request(max_tokens=4000), "lower it to"),
        (request(messages=[]), "one message"),
        (request(messages="hello"), "one message"),
        (with_picture("http://127.0.0.1/a.jpg"), "not fetched"),
        (with_picture("file:///etc/passwd"), "not fetched"),
        (with_picture("data:image/png;base64,!!"), "base64"),
        (with_picture("data:image/png;base64,aGVsbG8="), "no picture"),
        (request(seed=-1), "a seed of 0"),
        (request(seed=1, temperature=3), "a temperature of 0 to 2"),
        (request(seed=1, top_p=0), "a top_p above 0"),
        ([], "alone is here"),
    ],
)
def test_the_small_server_says_what_is_wrong_with_a_request(server, body, said):
    answer = httpx.post(server + PATH, json=body)

    assert answer.status_code == 400
    assert said in answer.json()["error"]["message"]


def test_the_small_server_answers_as_openai_does(server):
    answer = httpx.post(server + PATH, json=request()).json()

    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 4
    assert httpx.post(server + PATH, content=b"{").status_code == 400
