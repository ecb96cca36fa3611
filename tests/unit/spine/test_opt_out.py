"""What hosts reserve: robots.txt as RFC 9309 reads it, and the headers."""

import pytest

from spine.errors import WebError
from spine.opt_out import RobotsByHost, TdmByHost, reserved_by_headers
from spine.robots import Robots, parse_robots
from spine.web import WebResponse


def forbids(text: str, path: str) -> str | None:
    return parse_robots(text.encode(), "popfactory").forbids(f"http://a.example{path}")


@pytest.mark.parametrize(
    ("text", "path", "forbidden"),
    [
        ("", "/x", False),
        ("User-agent: *\nDisallow:", "/x", False),
        ("User-agent: *\nDisallow: /", "/x", True),
        ("User-agent: *\nDisallow: /a", "/b", False),
        ("User-agent: *\nDisallow: /a/\nAllow: /a/b", "/a/bc", False),  # the longer one
        ("User-agent: *\nAllow: /a\nDisallow: /a", "/a", False),  # equally long: allowed
        ("User-agent: *\nDisallow: /a\nAllow: /", "/a", True),  # not the first one
        ("User-agent: popfactory\nDisallow: /a\n\nUser-agent: *\nDisallow: /", "/b", False),
        ("User-agent: *\nDisallow:\n\nUser-Agent: PopFactory\nUser-agent: x\nDisallow: /", "/b", True),
        ("User-agent: x\nDisallow: /a\nUser-agent: *\nDisallow: /b", "/a", False),
        ("user-agent:popfactory\nDisallow: /a\nUser-agent: z\nDisallow: /c\nUser-agent: popfactory\nDisallow: /b",
         "/b", True),
        ("User-agent: *\nDisallow: /*.jpg$", "/p/1.jpg", True),
        ("User-agent: *\nDisallow: /*.jpg$", "/p/1.jpg?x=1", False),
        ("User-agent: *\nDisallow: /*.jpg", "/p/1.jpg?x=1", True),
        ("User-agent: *\nDisallow: /a*b*c$", "/a-b-bc", True),
        ("User-agent: *\nDisallow: /ab*ba$", "/aba", False),  # the two parts may not share a letter
        ("User-agent: *\nDisallow: /a$", "/a", True),
        ("User-agent: *\nDisallow: /a$", "/ab", False),
        ("User-agent: *\nDisallow: /ä", "/%C3%A4", True),
        ("User-agent: *\nDisallow: /x?secret", "/x?secret=1", True),
        ("User-agent: * # all\nDisallow: /a # these", "/a", True),
        ("\ufeffUser-agent: *\r\nDisallow: /a\r\n", "/a", True),
        ("<html>not here</html>\nDisallow: /", "/a", False),
        ("User-agent: *\nDisallow: /", "/robots.txt", False),
    ],
)  # fmt: skip
def test_robots_txt_is_read_as_the_standard_says(text, path, forbidden):
    assert (forbids(text, path) is not None) is forbidden


def test_the_rule_is_told_as_it_stands():
    assert forbids("User-agent: *\nDisallow: /*/private", "/a/private/b") == "Disallow: /*/private"


def test_a_hostile_robots_txt_ends_too():  # a backtracking matcher would take hours
    rules = "User-agent: *\n" + "Disallow: /" + "*a" * 5_000 + "$\n" + "Disallow: /x\n" * 20_000
    assert forbids(rules, "/" + "a" * 4_000 + "b") is None
    assert parse_robots(bytes(range(256)) * 1_000, "popfactory") == Robots()


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, None),
        ({"x-robots-tag": "noai"}, "x-robots-tag: noai"),
        ({"x-robots-tag": "NOARCHIVE, NoImageAI"}, "x-robots-tag: noimageai"),
        ({"x-robots-tag": "otherbot: noai, noindex"}, None),
        ({"x-robots-tag": "otherbot: noai\nnoindex"}, "x-robots-tag: noindex"),
        ({"x-robots-tag": "PopFactory: noimageindex"}, "x-robots-tag: noimageindex"),
        ({"x-robots-tag": "unavailable_after: 25 Jun 2010, noai"}, "x-robots-tag: noai"),
        ({"x-robots-tag": "max-image-preview: none, nofollow, all"}, None),
        ({"tdm-reservation": "1"}, "tdm-reservation: 1"),
        ({"tdm-reservation": "0, 1"}, "tdm-reservation: 1"),
        ({"tdm-reservation": "0"}, None),
        ({"tdm-reservation": "10"}, None),
    ],
)
def test_headers_reserve_as_their_standards_say(headers, words):
    assert reserved_by_headers(headers) == words


def test_a_host_is_asked_once_and_its_failure_is_told_to_all():
    asked = []

    def ask(url: str) -> WebResponse:
        asked.append(url)
        if "down" in url:
            raise WebError("timeout", "no answer")
        return WebResponse(b"User-agent: *\nDisallow: /a", url, 200, {})

    robots = RobotsByHost(ask)
    assert robots.forbids("http://one.example/a/1") == "robots.txt: Disallow: /a"
    assert robots.forbids("http://ONE.example/b") is None
    for _ in range(2):
        with pytest.raises(WebError):
            robots.forbids("https://down.example:8443/x")
    for strange in (
        "ftp://one.example/a",
        "http://",
        "http://[::1",
        "http://me:pw@two.example/a",
        "no address",
    ):
        assert robots.forbids(strange) is None
    assert asked == ["http://one.example/robots.txt", "https://down.example:8443/robots.txt"]


@pytest.mark.parametrize(
    ("content", "path", "words"),
    [
        (b'[{"location": "/photos/*", "tdm-reservation": 1}]', "/photos/a.jpg", "tdmrep.json: /photos/*"),
        (b'[{"location": "/photos/*", "tdm-reservation": 1}]', "/other/a.jpg", None),
        (b'[{"location": "*.jpg$", "tdm-reservation": "1"}]', "/a.jpg", "tdmrep.json: *.jpg$"),
        (
            b'[{"location": "/", "tdm-reservation": 0}, {"location": "/b", "tdm-reservation": 1}]',
            "/b",
            "tdmrep.json: /b",
        ),
        (b"<html>not found</html>", "/a", None),
        (b'{"location": "/", "tdm-reservation": 1}', "/a", None),
        (b'[1, null, {"location": 5, "tdm-reservation": 1}, {"tdm-reservation": 1}]', "/a", None),
        (b"[" * 100_000, "/a", None),
    ],
)
def test_tdmrep_json_reserves_the_locations_it_names(content, path, words):
    asked = []

    def ask(url: str) -> WebResponse:
        asked.append(url)
        return WebResponse(content, url, 200, {})

    tdm = TdmByHost(ask)
    for _ in range(2):
        assert tdm.reserves(f"http://a.example{path}") == words
    assert asked == ["http://a.example/.well-known/tdmrep.json"]


def test_a_host_without_the_file_reserves_nothing_and_one_that_fails_leaves_it_open():
    def missing(url: str) -> WebResponse:
        raise WebError("gone", "404", status=404)

    def failing(url: str) -> WebResponse:
        raise WebError("http_error", "503", status=503)

    assert TdmByHost(missing).reserves("http://a.example/x") is None
    with pytest.raises(WebError):
        TdmByHost(failing).reserves("http://a.example/x")


@pytest.mark.parametrize(
    ("text", "delay"),
    [
        ("User-agent: *\nCrawl-delay: 5", 5.0),
        ("User-agent: x\nCrawl-delay: 5", 0.0),
        ("User-agent: popfactory\nCrawl-delay: 0.5\n\nUser-agent: *\nCrawl-delay: 60", 0.5),
        ("User-agent: popfactory\nDisallow: /a\n\nUser-agent: *\nCrawl-delay: 60", 0.0),
        ("User-agent: *\nCrawl-delay: soon\nCrawl-delay: -1", 0.0),
    ],
)
def test_the_crawl_delay_of_our_group_counts(text, delay):
    assert parse_robots(text.encode(), "popfactory").crawl_delay_s == delay
