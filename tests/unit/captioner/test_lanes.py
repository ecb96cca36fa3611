"""The lane's time is given to it, so nothing here waits."""

import asyncio

from captioner.lanes import FAILURES_TO_CLOSE, LONGEST_REST_S, PROBES_TO_GIVE_UP, Lane, Lanes


def drive(lane, capacity, latency_s, rounds):
    """A server that works on `capacity` requests at a time, always given as many as the lane allows."""
    now = lane._window_start
    for _ in range(rounds):
        while lane.places(now):
            lane.sent(now)
        served = min(lane.running, capacity)
        now += latency_s
        for _ in range(served):
            lane.answered(now)
    return lane


def test_a_lane_widens_to_its_limit_while_that_brings_more_answers():
    assert drive(Lane("a", 512), capacity=10_000, latency_s=1.0, rounds=30).width == 512


def test_a_lane_does_not_go_far_beyond_what_the_server_can_do():
    assert 32 <= drive(Lane("a", 4096), capacity=32, latency_s=1.0, rounds=40).width <= 128


def test_a_lane_that_is_told_to_slow_down_halves_and_waits():
    lane = drive(Lane("a", 64), capacity=1000, latency_s=1.0, rounds=30)
    now = lane._window_start
    lane.sent(now)

    lane.slowed(now, 5.0)

    assert lane.width == 32
    assert lane.places(now + 4.9) == 0 and lane.places(now + 5.1) == 32


def test_after_that_it_widens_one_by_one():
    lane = Lane("a", 64)
    lane.sent(0.0)
    lane.slowed(lane._window_start, None)
    assert lane.width == 4

    drive(lane, capacity=1000, latency_s=1.0, rounds=3)

    assert 5 <= lane.width <= 7


def test_a_server_that_fails_time_and_again_rests_ever_longer_and_is_tried_with_one():
    lane, now, rests = Lane("a", 64), 0.0, []
    for _ in range(FAILURES_TO_CLOSE - 1):
        lane.sent(now)
        lane.failed(now)
    assert lane.places(now) == 8

    for number in range(9):
        lane.sent(now)
        lane.failed(now, probe=number > 0)
        assert lane.places(now) == 0
        rests.append(lane.rest_until - now)
        now = lane.rest_until
        assert lane.places(now) == 1

    assert rests[:4] == [0.5, 1.0, 2.0, 4.0] and max(rests) == LONGEST_REST_S
    lane.sent(now)
    lane.answered(now)
    assert lane.places(now) == 8


def test_probes_alone_tell_that_a_server_is_gone_and_late_failures_lengthen_no_rest():
    lanes = Lanes(("a",), 64)
    [lane] = lanes.all
    for _ in range(40):
        lane.running += 1  # all under way before the first came back
    for _ in range(40):
        lane.failed(0.0, "a: answers 500")
    assert (lane.rest_until, lane.in_vain) == (0.5, 0)

    for number in range(1, PROBES_TO_GIVE_UP + 1):
        assert not lanes.gone
        lane.sent(lane.rest_until)
        lane.failed(lane.rest_until, "a: answers 500", probe=True)
        assert lane.in_vain == number

    assert lanes.gone
    assert lane.rest_until == 0.5 + 1 + 2 + 4 + 8 + 16 + LONGEST_REST_S
    assert lanes.complaint == f"a: answers 500 ({40 + PROBES_TO_GIVE_UP} failures in a row)"
    lane.sent(lane.rest_until)
    lane.answered(lane.rest_until)
    assert not lanes.gone


def test_a_rest_that_the_server_asked_for_is_not_cut_short_by_a_failure():
    lane = Lane("a", 64)
    for _ in range(2):
        lane.sent(0.0)
    lane.slowed(0.0, 20.0)
    lane.failed(0.0, unheard=True)

    assert lane.rest_until == 20.0


def test_nobody_waits_for_ever_and_nobody_more_than_allowed_is_under_way():
    async def work():
        lanes, most = Lanes(("a", "b"), 4), 0

        async def one():
            nonlocal most
            lane = await lanes.enter()
            most = max(most, *(each.running for each in lanes.all))
            await asyncio.sleep(0.001)
            lane.answered(asyncio.get_running_loop().time())
            lanes.wake()

        await asyncio.wait_for(asyncio.gather(*(one() for _ in range(100))), 20)
        return most, [lane.running for lane in lanes.all]

    most, left = asyncio.run(work())
    assert most == 4 and left == [0, 0]


def test_places_go_to_those_who_wait_longest_however_many_come_free_at_once():
    async def work():
        lanes, order = Lanes(("a",), 8), []
        held = [await lanes.enter() for _ in range(8)]

        async def one(number):
            lane = await lanes.enter()
            order.append(number)
            held.append(lane)

        waiting = [asyncio.create_task(one(number)) for number in range(90)]
        await asyncio.sleep(0)
        waiting[3].cancel()
        while len(order) < 60:
            burst, held[:] = held[:], []
            for lane in burst:  # all in one turn of the loop, as answers come
                lane.answered(asyncio.get_running_loop().time())
                lanes.wake()
            given = next(number for number in range(90) if number not in (3, *order))
            if given == 9:
                waiting[given].cancel()  # it has its place and has not run yet
            for _ in range(4):
                await asyncio.sleep(0)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        return order, lanes.all[0].running - len(held)

    order, left = asyncio.run(work())
    assert order == sorted(order) and left == 0
    assert 3 not in order and set(range(60)) - set(order) <= {3, 9}


def test_a_place_in_a_lane_that_has_to_rest_by_then_is_given_back():
    async def work():
        lanes = Lanes(("a", "b"), 8)
        held = [await lanes.enter() for _ in range(16)]
        task = asyncio.create_task(lanes.enter())
        await asyncio.sleep(0)
        closed, other = lanes.all
        closed.answered(0.0)
        lanes.wake()
        closed.slowed(asyncio.get_running_loop().time(), 20.0)
        for _ in range(3):
            await asyncio.sleep(0)
        waits = not task.done()
        other.answered(0.0)
        lanes.wake()
        lane = await asyncio.wait_for(task, 5)
        return waits, lane is other, len(held), closed.running

    assert asyncio.run(work()) == (True, True, 16, 6)
