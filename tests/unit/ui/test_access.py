import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from spine.errors import ConfigError
from ui.access import POLICY, Guard, SecurityHeaders, is_loopback
from ui.tokens import Token, read_tokens

JSON = {"content-type": "application/json", "x-popfactory": "1"}


async def _here(_: Request) -> PlainTextResponse:
    return PlainTextResponse("here")


def client(token: str | None = None, address: str = "http://127.0.0.1:7860") -> TestClient:
    paths = [
        "/",
        "/api/decisions",
        "/gradio_api/queue/join",
        "/gradio_api/upload",
        "/gradio_api/file=/etc/passwd",
    ]
    app = Starlette(routes=[Route(path, _here, methods=["GET", "POST"]) for path in paths])
    tokens = [Token("", "write", token)] if token else []
    return TestClient(SecurityHeaders(Guard(app, tokens=tokens)), base_url=address, follow_redirects=False)


@pytest.mark.parametrize("path", ["/", "/nowhere", "/gradio_api/upload"])
def test_every_reply_has_the_policy(path):
    reply = client().get(path)

    assert reply.headers["content-security-policy"] == POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["referrer-policy"] == "no-referrer"


def test_under_gradios_address_only_what_the_pages_use_answers():
    assert client().get("/gradio_api/queue/join").status_code == 200
    assert client().get("/gradio_api/upload").status_code == 404
    assert client().get("/gradio_api/file=/etc/passwd").status_code == 404


@pytest.mark.parametrize("name", ["127.0.0.1:7860", "localhost:7860", "[::1]:7860"])
def test_without_a_token_loopback_names_are_answered(name):
    assert client(address=f"http://{name}").get("/").status_code == 200


def test_without_a_token_another_name_for_this_machine_is_refused():
    assert client(address="http://rebound.example:7860").get("/").status_code == 403


def test_a_write_needs_our_header_and_json():
    assert client().post("/api/decisions", content="{}", headers=JSON).status_code == 200
    assert client().post("/api/decisions", content="{}", headers={"x-popfactory": "1"}).status_code == 415
    plain = {"x-popfactory": "1", "content-type": "text/plain"}
    assert client().post("/api/decisions", content="{}", headers=plain).status_code == 415
    assert client().post("/api/decisions", json={}).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:1"},
        {"sec-fetch-site": "cross-site"},
    ],
)
def test_another_sites_page_may_not_write(headers):
    assert client().post("/api/decisions", content="{}", headers=JSON | headers).status_code == 403


def test_our_own_page_may_write():
    own = {"origin": "http://127.0.0.1:7860", "sec-fetch-site": "same-origin"}

    assert client().post("/api/decisions", content="{}", headers=JSON | own).status_code == 200


def test_the_same_holds_where_another_app_mounts_the_board():
    paths = ["/api/decisions", "/gradio_api/upload"]
    inner = Guard(Starlette(routes=[Route(path, _here, methods=["GET", "POST"]) for path in paths]))
    door = TestClient(Starlette(routes=[Mount("/ui", app=inner)]), base_url="http://127.0.0.1:7860")

    assert door.get("/ui/api/decisions").status_code == 200
    assert door.get("/ui/gradio_api/upload").status_code == 404
    assert door.post("/ui/api/decisions", json={}).status_code == 403
    assert door.post("/ui/api/decisions", content="{}", headers=JSON).status_code == 200


def test_with_a_token_nothing_but_the_login_answers_until_it_is_given():
    door = client(token="a secret", address="http://board.example")

    assert door.get("/api/decisions").status_code == 401
    assert door.get("/", headers={"accept": "text/html"}).headers["location"] == "/login"
    assert door.get("/login").status_code == 200
    assert door.post("/login", data={"token": "a guess"}).status_code == 403
    assert door.get("/api/decisions").status_code == 401

    reply = door.post("/login", data={"token": "a secret"})

    cookie = reply.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=lax" in cookie and "a secret" not in cookie
    assert door.get("/api/decisions").status_code == 200


def test_guesses_are_slowed_down():
    door = client(token="a secret", address="http://board.example")
    answers = [door.post("/login", data={"token": str(guess)}).status_code for guess in range(12)]

    assert answers == [403] * 10 + [429] * 2
    assert door.post("/login", data={"token": "a secret"}).status_code == 429


def test_loopback_is_told_from_other_addresses():
    assert all(is_loopback(host) for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost"))
    assert not any(
        is_loopback(host) for host in ("0.0.0.0", "::", "192.168.1.4", "board.example", "127.example", "")
    )


def test_a_token_that_reads_looks_and_does_not_write_and_its_name_is_known():
    tokens = [Token("ada", "write", "secret of ada"), Token("eve", "read", "secret of eve")]

    async def name(request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.state.curator)

    app = Starlette(routes=[Route("/api/decisions", name, methods=["GET", "POST"])])
    for token, status in zip(tokens, (200, 403), strict=True):
        door = TestClient(Guard(app, tokens=tokens), base_url="http://board.example")
        door.post("/login", data={"token": token.secret})
        assert door.get("/api/decisions").text == token.name
        assert door.post("/api/decisions", content="{}", headers=JSON).status_code == status


def test_a_cookie_holds_over_a_restart_and_ends_with_its_token_or_its_time():
    ada = Token("ada", "write", "secret of ada")
    cookie = ada.cookie(now=1_000.0)

    assert Token("ada", "write", "secret of ada").signed(cookie, now=2_000.0)
    assert not Token("ada", "write", "another secret").signed(cookie, now=2_000.0)
    assert not Token("eve", "write", "secret of ada").signed(cookie, now=2_000.0)
    assert not ada.signed(cookie, now=1_000.0 + 31 * 86_400)
    name, until, signature = cookie.split(".")
    for forged in (
        f"eve.{until}.{signature}",
        f"{name}.{int(until) + 1}.{signature}",
        f"{name}.x.{signature}",
        "",
    ):
        assert not ada.signed(forged, now=2_000.0)


def test_tokens_are_read_from_a_file_and_a_wrong_line_is_told_without_its_secret(tmp_path):
    path = tmp_path / "tokens"
    path.write_text("# who\nada write secret-of-ada-1\n\neve read secret-of-eve-1\n")
    assert read_tokens(path) == [
        Token("ada", "write", "secret-of-ada-1"),
        Token("eve", "read", "secret-of-eve-1"),
    ]
    for wrong in (
        "ada write",
        "ada admin secret-of-ada-1",
        "a.b write secret-of-ada-1",
        "ada write short",
        "ada write secret-of-ada-1\nada read secret-of-ada-2",
        "# nobody",
    ):
        path.write_text(wrong)
        with pytest.raises(ConfigError) as told:
            read_tokens(path)
        assert "secret-of" not in str(told.value)
