"""How many requests a caption server is given at a time, and when it is left alone.

Each server has a lane. Its width begins small and doubles while that brings more answers a second; told to slow down,
or without an answer in time, it halves, as TCP does with its window. A server that fails time and again is left alone
for a while, and then probed with a single picture that nothing is wrong with: so it shows whether the server fails or
the pictures did.
"""

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

FAILURES_TO_CLOSE = 8
"""Failures in a row until a server is left alone; more than one picture's attempts, for it may be the cause."""

LONGEST_REST_S = 30.0

PROBES_TO_GIVE_UP = 6
"""So often in a row a server may be probed in vain until it is gone: some 15 s where nobody listens, 30 s else."""

_FIRST_WIDTH = 8
_GAIN = 1.05  # so much more must a wider lane bring, to be widened again
_PROBE_AFTER = 8  # windows without gain until a wider one is tried again
_FEWEST_IN_WINDOW = 8


@dataclass(slots=True)
class Lane:
    """One server, as its client sees it. Times are of time.monotonic."""

    address: str
    widest: int
    """Requests at the same time at most."""
    width: int = 0
    """Requests at the same time now."""
    running: int = 0
    failures: int = 0
    """In a row."""
    said: str = ""
    """What its last failure was."""
    probing: bool = False
    """Whether it failed so often that a picture known to be good is to be tried first, alone."""
    in_vain: int = 0
    """Probes in a row that failed; nobody listening counts from the first time on."""
    rest_until: float = 0.0
    """Nothing is sent before."""
    _rest_s: float = 0.5
    _congested: bool = False
    _full: bool = False
    _answers: int = 0
    _window_start: float = field(default_factory=time.monotonic)
    _rate: float = 0.0
    _idle_windows: int = 0

    def __post_init__(self) -> None:
        """Begin with few."""
        self.width = min(_FIRST_WIDTH, self.widest)

    def places(self, now: float) -> int:
        """Requests that may be sent now."""
        if now < self.rest_until:
            return 0
        width = 1 if self.probing else self.width
        return max(width - self.running, 0)

    def sent(self, now: float) -> None:
        """One more is under way."""
        if self.running == 0 and self._answers == 0:
            self._window_start = now
        self.running += 1
        self._full = self._full or self.running >= self.width

    def answered(self, now: float) -> None:
        """One came back with a caption."""
        self.running -= 1
        self.failures, self.in_vain, self.probing, self._rest_s = 0, 0, False, 0.5
        self._answers += 1
        if self._answers >= max(self.width, _FEWEST_IN_WINDOW):
            self._widen(now)

    def slowed(self, now: float, wait_s: float | None) -> None:
        """It asked for time: half as many, and nothing before `wait_s` is over."""
        self.running -= 1
        self._narrow(now)
        if wait_s is not None:
            self.rest_until = max(self.rest_until, now + min(wait_s, LONGEST_REST_S))

    def failed(
        self, now: float, said: str = "", *, probe: bool = False, unheard: bool = False, late: bool = False
    ) -> None:
        """One came back without a caption.

        Args:
            now: Of time.monotonic.
            said: What the server answered, for whoever has to set it right.
            probe: It was sent as a probe, so it is not the picture's fault.
            unheard: Nobody listens there.
            late: There was no answer in time.
        """
        self.running -= 1
        self.failures += 1
        self.said = said
        if late:
            self._narrow(now)
        closes = not self.probing and (unheard or self.failures >= FAILURES_TO_CLOSE)
        if closes or probe:  # what was still under way when it closed counts no more
            self.rest_until = max(self.rest_until, now + min(self._rest_s, LONGEST_REST_S))
            self._rest_s *= 2
            self.in_vain += probe or unheard
            self.probing = True

    def dropped(self) -> None:
        """One was given up by us."""
        self.running -= 1

    def _widen(self, now: float) -> None:
        """At the end of a window of answers: wider, if the last widening helped and there was work for it."""
        rate = self._answers / max(now - self._window_start, 1e-6)
        if not self._full:
            self._begin_window(now, self._rate)
            return
        self._idle_windows += 1
        if rate >= _GAIN * self._rate or self._idle_windows >= _PROBE_AFTER:
            step = 1 if self._congested else self.width
            self.width = min(self.width + step, self.widest)
            self._idle_windows = 0
        self._begin_window(now, max(rate, self._rate))

    def _narrow(self, now: float) -> None:
        self.width, self._congested = max(self.width // 2, 1), True
        self._begin_window(now, rate=0.0)

    def _begin_window(self, now: float, rate: float) -> None:
        self._answers, self._window_start, self._rate, self._full = 0, now, rate, False


class Lanes:
    """The lanes of all servers; used by one event loop."""

    def __init__(self, addresses: tuple[str, ...], widest: int) -> None:
        self.all = [Lane(address, widest) for address in addresses]
        self._waiting: deque[asyncio.Future[Lane]] = deque()
        self._alarm: asyncio.TimerHandle | None = None

    async def enter(self) -> Lane:
        """Wait for a place, first come, first served, and take it in the lane with most places free."""
        first = False
        while True:
            turn: asyncio.Future[Lane] = asyncio.get_running_loop().create_future()
            if first:
                self._waiting.appendleft(turn)
            else:
                self._waiting.append(turn)
            self.wake()
            try:
                lane = await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():  # whoever gives up a place passes it on
                    turn.result().dropped()
                    self.wake()
                raise
            if lane.rest_until <= time.monotonic():
                return lane
            lane.dropped()  # it was told to rest after the place was given
            first = True

    def wake(self) -> None:
        """Give the places there are to those who wait longest; to be called when a lane has changed."""
        now = time.monotonic()
        while self._waiting:
            lane = max(self.all, key=lambda each: each.places(now))
            if lane.places(now) == 0:
                break
            turn = self._waiting.popleft()
            if not turn.done():
                lane.sent(now)  # now, not when it runs: others would be given the same place until then
                turn.set_result(lane)
        self._set_alarm(now)

    def _set_alarm(self, now: float) -> None:
        """Wake those who wait when the next lane has rested; theirs is no task, which could be given up with it."""
        if self._alarm is not None:
            self._alarm.cancel()
        rests = [each.rest_until - now for each in self.all if each.rest_until > now]
        due = bool(rests and self._waiting)
        self._alarm = asyncio.get_running_loop().call_later(min(rests) + 0.001, self.wake) if due else None

    @property
    def gone(self) -> bool:
        """Whether for some time no server has given a caption of anything."""
        return all(lane.in_vain >= PROBES_TO_GIVE_UP for lane in self.all)

    @property
    def complaint(self) -> str:
        """What each server said last, and how often in a row it failed."""
        return "; ".join(f"{lane.said} ({lane.failures:,} failures in a row)" for lane in self.all)
