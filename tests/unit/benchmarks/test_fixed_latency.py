import pytest

from benchmarks.fixed_latency import fixed_latency_server, kept_busy


def test_a_client_that_never_leaves_a_place_empty_uses_all_of_them():
    waves = [(wave + place / 10, wave + 1 + place / 10) for wave in range(400) for place in range(4)]

    kept = kept_busy(waves, 4)

    assert (kept.rate, kept.places_used) == (pytest.approx(4, rel=0.01), pytest.approx(1, abs=0.001))


def test_what_a_client_waits_before_it_asks_again_is_lost_and_how_it_begins_is_not():
    slow_start = [(-1000.0 + 10 * turn, -999.0 + 10 * turn) for turn in range(100)]
    each = [(1.25 * turn, 1 + 1.25 * turn) for turn in range(400)]

    kept = kept_busy([*slow_start, *each, *each], 2)

    assert (kept.rate, kept.places_used) == (pytest.approx(1.6, rel=0.01), pytest.approx(0.8, abs=0.01))


def test_the_server_answers_after_its_latency_and_tells_when():
    import httpx

    with fixed_latency_server(0.05, spread=0.4) as server:
        names = httpx.get(f"{server.address}/models").json()["data"]
        answers = [httpx.post(f"{server.address}/chat/completions", json={}).json() for _ in range(5)]
        served = server.served()

    assert names == [{"id": "fixed"}]
    assert [answer["choices"][0]["message"]["content"] for answer in answers] == ["a star"] * 5
    assert len(served) == 5 and all(answered - arrived >= 0.03 for arrived, answered in served)
