import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from spine.config import PRESETS, preset, with_demo_models
from spine.endpoints import endpoint_base, models_at
from spine.errors import ConfigError
from spine.jobs import Journal, list_jobs
from spine.publish import publish_json
from spine.stage import Stage
from spine.table_files import read_parts
from spine.tables import IMAGES, NEIGHBOURS, scores_schema
from tests.unit.ui.planted import D
from ui.captioning import last_rate
from ui.desk import Desk
from ui.setup_desk import SetupDesk, nearest_preset


class Answer(BaseHTTPRequestHandler):
    """GET /ok/models: two models, to who knows the key; /broken/models: no JSON; else 404."""

    def do_GET(self):
        known = self.headers.get("Authorization") == "Bearer secret"
        bodies = {"/ok/models": {"data": [{"id": "llava"}, {"id": "other"}]}, "/open/models": {"data": []}}
        body = json.dumps(bodies.get(self.path)) if self.path in bodies else "no JSON"
        status = (
            404 if self.path == "/gone/models" else 401 if self.path == "/ok/models" and not known else 200
        )
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def address():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def setup(planted):
    desk = Desk(planted.run)
    yield SetupDesk(desk)
    desk.close()


def change(run, old, new):
    text = run.config.read_text()
    assert old in text
    run.config.write_text(text.replace(old, new))


def test_a_caption_server_is_asked_for_its_models_and_every_trouble_is_told(address):
    assert models_at(f"{address}/ok", key="secret").names == ("llava", "other")
    assert "answers 401" in models_at(f"{address}/ok").trouble
    assert "answers 404" in models_at(f"{address}/gone").trouble
    assert "not as an OpenAI-compatible server" in models_at(f"{address}/broken").trouble
    assert "can't be reached" in models_at("http://127.0.0.1:9/v1").trouble
    assert "no address" in models_at("127.0.0.1:8000").trouble


def test_an_endpoint_is_taken_with_or_without_its_version():
    assert endpoint_base("http://host:8000") == endpoint_base("http://host:8000/v1/chat/completions")
    with pytest.raises(ConfigError):
        endpoint_base("ftp://host")


def test_the_settings_caption_servers_are_shown_with_what_they_lack(planted, setup, address, monkeypatch):
    assert setup.engines() == []
    change(planted.run, "endpoints = []", f'endpoints = ["{address}/ok", "{address}/open"]')
    change(planted.run, 'api_key_env = ""', 'api_key_env = "PLANTED_KEY"')

    monkeypatch.delenv("PLANTED_KEY", raising=False)
    assert "PLANTED_KEY with its key is not set" in setup.engines()[0]["trouble"]
    monkeypatch.setenv("PLANTED_KEY", "secret")
    first, second = setup.engines()

    assert first["models"] == ["llava", "other"] and "no model demo; it has llava, other" in first["trouble"]
    assert "it has none" in second["trouble"]
    assert "secret" not in json.dumps([first, second])


def test_lists_are_told_with_entries_digest_and_what_is_wrong(planted, setup):
    run = planted.run
    (run.folder / "down.txt").write_text("# mine\n12\nexample.org\nhttps://example.org/a.jpg\n")
    change(run, "takedown = []", 'takedown = ["down.txt", "gone.txt"]')

    good, missing = setup.about()["lists"]

    assert (good["kind"], Path(good["path"]).name, good["entries"]) == ("takedown", "down.txt", 3)
    assert good["digest"] == hashlib.sha256((run.folder / "down.txt").read_bytes()).hexdigest()
    assert "gone.txt: can't be read" in missing["trouble"]


def test_the_index_is_told_with_the_recall_of_its_report(planted, setup):
    assert setup.about()["index"] is None
    stage = Stage.open("index", planted.run.index, {}, {})
    search = {
        "k": 100,
        "recall_wanted": 0.95,
        "recall_reached": True,
        "recall_at_10": 0.98,
        "recall_at_100": 0.96,
    }
    publish_json(planted.run.index / "index_report.json", {"search": search})
    stage.finish({"vectors": 90}, {"kind": "IVF", "n": 90, "d": 4, "model": "demo-clip", "nprobe": 8})

    index = setup.about()["index"]

    assert (index["kind"], index["n"], index["d"], index["nprobe"]) == ("IVF", 90, 4, 8)
    assert index["recall"]["recall_at_100"] == 0.96


def test_filters_are_told_with_of_how_many_pictures_their_value_is_known(planted, setup):
    run = planted.run
    scores = read_parts(run.scores, scores_schema(D))
    images, neighbours = read_parts(run.images, IMAGES), read_parts(run.neighbours, NEIGHBOURS)

    told = {each["filter"]: each for each in setup.about()["filters"]}

    unknown = scores["unsafe"].null_count
    assert unknown and told["punsafe_max"]["measured"] == [scores.num_rows - unknown, scores.num_rows]
    assert told["min_side_px"] == {
        "filter": "min_side_px",
        "limit": 64,
        "measured": [images.num_rows - images["width"].null_count, images.num_rows],
        "of_pool": [neighbours.num_rows, neighbours.num_rows],
    }
    assert told["pwatermark_max"]["of_pool"] == [0, neighbours.num_rows]
    known = scores.num_rows - scores["violence"].null_count
    assert (told["violence_max"]["limit"], told["violence_max"]["measured"]) == (
        None,
        [known, scores.num_rows],
    )
    assert 0 < known < scores.num_rows


def test_the_rate_of_the_newest_captioning_is_that_of_its_job(planted, setup):
    assert last_rate(planted.run) is None
    for captions in (4, 30, 0):
        journal = Journal(planted.run, ["caption"])
        journal.begin("caption", 40, "pictures")
        journal.advance(captions)
        journal.close("cancelled")
    second = next(job for job in list_jobs(planted.run) if job.done == 30)

    rate = last_rate(planted.run)

    assert rate["job"] == second.job_id and rate["per_s"] > 0


def test_demo_models_are_named_as_such_and_no_server_is_no_trouble(setup):
    about = setup.about()

    assert {each["does"] for each in about["models"] if each["demo"]} >= {"captions", "aesthetic score"}
    assert setup.server()["ready"] is False


def test_disk_use_is_that_of_the_files(planted, setup):
    found = setup.disk()

    files = [path for path in planted.run.images.rglob("*") if path.is_file()]
    assert found["folders"]["images"] == sum(path.stat().st_size for path in files)
    assert found["complete"] and 0 < found["free_bytes"] <= found["total_bytes"]


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("demo", [False, True])
def test_a_preset_is_recognised_and_what_differs_from_it_named(name, demo):
    config = with_demo_models(preset(name)) if demo else preset(name)

    found = nearest_preset(config)

    assert (found["demo_models"], found["differing"]) == (demo, [])
