import hashlib
import json
import re
import socket

import pytest
from starlette.testclient import TestClient

from spine.errors import ConfigError
from tests.small_disk import fill, small_disk
from tests.unit.ui.planted import pdq_of, picture_bytes, plant, state_of
from ui.access import POLICY
from ui.app import build_app
from ui.serving import serve
from ui.tokens import Token


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    return plant(tmp_path_factory.mktemp("board") / "run")


@pytest.fixture(scope="module")
def board(planted):
    with TestClient(build_app(planted.run), base_url="http://127.0.0.1:7860") as client:
        yield client


WRITE = {"content-type": "application/json", "x-popfactory": "1"}


@pytest.mark.parametrize("path", ["/", "/captions", "/jobs", "/release", "/setup"])
def test_a_page_names_no_other_host_and_reports_to_nobody(board, path):
    reply = board.get(path)

    assert reply.status_code == 200
    assert reply.headers["content-security-policy"] == POLICY
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?:)?//([^"/]+)', reply.text)
    assert [host for _, host in loaded if host not in ("127.0.0.1:7860",)] == []
    configuration = re.search(r"window\.gradio_config = (\{.*?\});", reply.text)
    assert configuration is not None
    assert json.loads(configuration[1])["analytics_enabled"] is False


def test_the_pages_carry_no_data_of_the_run(board, planted):
    page = board.get("/").text

    assert "red squares" not in page and str(planted.run.folder) not in page


def test_a_run_on_demo_models_says_so(board):
    assert board.get("/api/run").json()["demo"].startswith("demo models: ")


def test_no_other_site_is_let_read(board):
    reply = board.get("/config", headers={"origin": "https://evil.example"})

    assert "access-control-allow-origin" not in reply.headers


def test_a_centroid_that_is_not_there_is_told(board):
    for wrong in (3, -1, 2**40):
        reply = board.get(f"/api/neighbours?centroid={wrong}")
        assert reply.status_code == 409 and "not in this run" in reply.json()["error"]
    assert board.get("/api/neighbours?centroid=x").status_code == 422


def test_thumbnails_answer_by_hash_and_only_for_pictures_of_the_run(board, planted):
    clear = board.get(f"/thumb/{planted.hashes[0]}.webp")
    blurred = board.get(f"/thumb/{planted.hashes[0]}.blurred.webp")

    assert clear.headers["content-type"] == blurred.headers["content-type"] == "image/webp"
    assert "immutable" in clear.headers["cache-control"] and "private" in clear.headers["cache-control"]
    assert clear.content != blurred.content
    for name in (f"{'0' * 64}.webp", "../../popfactory.toml", f"{planted.hashes[0]}.png", "x.webp"):
        assert board.get(f"/thumb/{name}").status_code == 404


def test_a_taken_down_picture_is_gone_at_once_from_rows_and_thumbnails(tmp_path):
    planted = plant(tmp_path / "run")
    with TestClient(build_app(planted.run), base_url="http://127.0.0.1:7860") as board:
        assert board.get(f"/thumb/{planted.hashes[0]}.webp").status_code == 200
        (planted.run.folder / "takedown.txt").write_text(f"{planted.ids[0]}\n")
        settings = planted.run.config.read_text()
        planted.run.config.write_text(settings.replace("takedown = []", 'takedown = ["takedown.txt"]'))

        rows = board.get("/api/neighbours?centroid=0").json()["rows"]

        assert rows[0]["state"] == "blocked" and rows[1]["state"] == "ready"
        assert board.get(f"/api/picture?of={planted.ids[0]}").status_code == 404
        assert board.get(f"/api/picture?of={planted.ids[1]}").json()["story"]
        assert board.get(f"/thumb/{planted.hashes[0]}.webp").status_code == 410
        (planted.run.folder / "takedown.txt").unlink()
        assert board.get("/api/neighbours?centroid=0").status_code == 409
        assert board.get(f"/thumb/{planted.hashes[1]}.webp").status_code == 409


@pytest.mark.parametrize("kind", ["md5", "pdq"])
def test_a_hash_list_is_in_effect_at_the_next_look_without_another_fetch(tmp_path, kind):
    planted = plant(tmp_path / "run")
    value = pdq_of(0) if kind == "pdq" else hashlib.md5(picture_bytes(0)).hexdigest()
    with TestClient(build_app(planted.run), base_url="http://127.0.0.1:7860") as board:
        assert board.get(f"/thumb/{planted.hashes[0]}.webp").status_code == 200
        (planted.run.folder / "hashes.txt").write_text(f"{kind}:{value}\n")
        settings = planted.run.config.read_text()
        planted.run.config.write_text(settings.replace("hash_block = []", 'hash_block = ["hashes.txt"]'))

        rows = board.get("/api/neighbours?centroid=0").json()["rows"]

        assert rows[0]["state"] == "blocked"
        assert board.get(f"/thumb/{planted.hashes[0]}.webp").status_code == 410


def test_while_a_list_can_not_be_read_no_picture_is_shown_and_the_answer_names_it(tmp_path):
    planted = plant(tmp_path / "run")
    with TestClient(build_app(planted.run), base_url="http://127.0.0.1:7860") as board:
        shown = [f"/thumb/{planted.hashes[0]}.webp", f"/preview/{planted.ids[28]}.blurred.webp"]
        asked = [*shown, "/api/neighbours?centroid=0", f"/api/picture?of={planted.ids[0]}"]
        assert board.get(asked[2]).status_code == 200
        settings = planted.run.config.read_text()
        planted.run.config.write_text(settings.replace("takedown = []", 'takedown = ["gone.txt"]'))

        for path in asked:
            reply = board.get(path)
            assert reply.status_code == 409 and "gone.txt" in reply.json()["error"], path


def test_a_job_of_another_name_or_with_options_is_refused(board):
    for commands in (["rm"], ["select --out x"], ["select", "rm"], [], "select", [["select"]], None):
        reply = board.post("/api/jobs", content=json.dumps({"commands": commands}), headers=WRITE)
        assert reply.status_code == 409, commands
    assert board.get("/api/jobs").json() == {"jobs": [], "total": 0, "waiting": []}


def test_a_body_that_is_no_json_or_too_long_is_refused(board):
    assert board.post("/api/decisions", content="{", headers=WRITE).status_code == 409
    assert board.post("/api/decisions", content=" " * 4_000_001, headers=WRITE).status_code == 409


def test_an_address_that_others_can_reach_needs_a_token(planted):
    with pytest.raises(ConfigError, match="token"):
        serve(planted.run, host="0.0.0.0")


def test_a_port_that_is_taken_is_told_in_one_line(planted):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}: can't listen there"):
            serve(planted.run, port=port)


def test_scripts_and_style_sheets_have_an_address_that_a_browser_may_keep(board):
    names = re.findall(r'(?:src|href)="(/pages/[^"]+)"', board.get("/").text.replace('\\"', '"'))

    assert any(name.endswith("/main.js") for name in names) and any(name.endswith(".css") for name in names)
    for name in set(names):
        reply = board.get(name)
        assert reply.status_code == 200 and "immutable" in reply.headers["cache-control"], name
    assert board.get("/pages/older/main.js").headers["cache-control"] == "no-store"
    assert board.get("/pages/older/../../api.py").status_code == 404


def test_without_a_cookie_no_route_answers_but_the_login(planted):
    app = build_app(planted.run, tokens=[Token("ada", "write", "a long secret")])
    paths = {re.sub(r"{[^}]*}", "1", route.path) for route in app.routes if hasattr(route, "path")}
    with TestClient(app, base_url="http://board.example", follow_redirects=False) as door:
        for path in sorted(paths | {"/", "/jobs", "/config", "/gradio_api/queue/join"}):
            for method in ("GET", "POST"):
                reply = door.request(method, path or "/", headers=WRITE if method == "POST" else {})
                assert reply.status_code in (401, 404), (method, path)
                assert reply.status_code == 401 or path.startswith("/gradio_api"), path
    assert len(paths) > 20


def test_a_full_disk_is_told_with_what_to_do_and_nothing_is_shown_unlogged(tmp_path):
    blurred = next(number for number in range(20) if number % 7 == 3)
    with small_disk(tmp_path / "disk", "4m") as disk:
        planted = plant(disk / "run")
        with TestClient(build_app(planted.run), base_url="http://127.0.0.1:7860") as board:
            assert board.get("/api/centroids").status_code == 200
            filler = fill(disk)
            reply = board.get(f"/thumb/{planted.hashes[blurred]}.webp")

            assert reply.status_code == 507 and "free some space" in reply.json()["error"]
            assert board.get(f"/thumb/{planted.hashes[blurred]}.blurred.webp").status_code == 200
            filler.unlink()
            assert board.get(f"/thumb/{planted.hashes[blurred]}.webp").status_code == 200
            assert planted.hashes[blurred] in planted.run.reveals.read_text()


def test_likeness_to_a_centroid_needs_no_server_and_words_say_that_they_do(board, planted):
    ranking = board.get("/api/ranking?like=centroid:1").json()
    assert (ranking["centroids"][0], ranking["similarities"]) == ("1", [1.0, 0.0, 0.0])

    for path in ("ranking?like=text:red", "search?like=text:red", f"search?like=image:{planted.ids[0]}"):
        reply = board.get(f"/api/{path}")
        assert reply.status_code == 503 and "popfactory serve --run" in reply.json()["error"], path
    for like in (
        "",
        "text:",
        "nothing",
        "centroid:99",
        "centroid:x",
        "image:99999999999999999999",
        "picture:ab",
    ):
        assert board.get("/api/ranking", params={"like": like}).status_code == 409, like


def test_a_centroid_that_another_has_open_is_told_to_others_and_not_to_its_own_curator(board):
    board.get("/api/news?since=0&client=one&curator=ada&centroid=2")

    assert board.get("/api/news?since=0&client=two&curator=bob").json()["claims"] == {"2": "ada"}
    assert board.get("/api/news?since=0&client=three&curator=ada").json()["claims"] == {}
    board.get("/api/news?since=0&client=one&curator=ada&centroid=1")
    assert board.get("/api/news?since=0&client=two&curator=bob").json()["claims"] == {"1": "ada"}


def test_news_change_when_a_list_or_a_stage_does(tmp_path):
    planted = plant(tmp_path / "run")
    with TestClient(build_app(planted.run), base_url="http://127.0.0.1:7860") as board:
        states = [board.get("/api/news?since=0").json()["state"]]
        (planted.run.folder / "takedown.txt").write_text("")
        settings = planted.run.config.read_text()
        planted.run.config.write_text(settings.replace("takedown = []", 'takedown = ["takedown.txt"]'))
        states.append(board.get("/api/news?since=0").json()["state"])
        (planted.run.folder / "takedown.txt").write_text(f"{planted.ids[0]}\n")
        states.append(board.get("/api/news?since=0").json()["state"])
        (planted.run.selection / "manifest.json").unlink()
        states.append(board.get("/api/news?since=0").json()["state"])
    assert len(set(states)) == 4


def test_previews_are_made_of_what_the_board_showed_and_of_nothing_else(board, planted):
    pending = next(number for number in range(30) if state_of(number) == "pending")
    assert board.get(f"/preview/{planted.ids[40]}.blurred.webp").status_code == 404
    assert board.get("/preview/../../popfactory.toml").status_code == 404
    board.get("/api/neighbours?centroid=0")

    reply = board.get(f"/preview/{planted.ids[pending]}.blurred.webp")

    assert reply.status_code == 200 and reply.headers["content-type"] == "image/webp"
    assert reply.content != board.get(f"/preview/{planted.ids[pending]}.webp").content


def test_every_centroid_has_the_mean_aesthetic_score_of_its_scored_neighbours(board):
    for row in board.get("/api/centroids").json()["centroids"]:
        neighbours = board.get(f"/api/neighbours?centroid={row['centroid']}").json()["rows"]
        scores = [each["aesthetic"] for each in neighbours if each["aesthetic"] is not None]

        assert len(scores) > 10 and abs(row["aesthetic"] - sum(scores) / len(scores)) < 0.002
