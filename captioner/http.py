"""A captioner behind an OpenAI-compatible server: vLLM, SGLang, LMDeploy, llama.cpp, or our own small one.

Pictures go as bytes in data URLs, never as addresses that the server would fetch. A server that says it is busy is
given time; whatever else goes wrong with a picture is tried a few times and then counted for that picture alone. Where
no server gives a caption of anything any more, the work stops.
"""

import asyncio
import hashlib
import json
import os
import threading
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import httpx
import uvloop
from PIL import Image

from captioner.answers import UNREACHABLE, BrokenOff, Busy, Unreachable, pause_s, understood
from captioner.checkpoint import DEMO_FOLDER
from captioner.connections import CONNECT_S, Connections, certificates
from captioner.engine import CaptionFailure, Heard, Prepared, Reply, Sampling, Wanted
from captioner.lanes import Lane, Lanes
from captioner.pictures import PREPROCESSING, blank_picture
from captioner.proxied import ProxiedConnections, needs_proxy
from captioner.sending import SENT, Question, read_to_send, ready_to_send
from spine.endpoints import endpoint_base
from spine.errors import ConfigError, ServiceError
from spine.prompts import Prompt
from spine.refused import Refused
from spine.settings import CaptionConfig
from spine.workers import PictureWorkers

Result = TypeVar("Result")

MAX_ATTEMPTS = 5
"""A picture is put to the servers so often at most, not counting answers that they are busy."""

MAX_BUSY = 60
"""So often a picture may be told to wait, at most MAX_PAUSE_S each time."""

REQUEST_TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class HttpSetup:
    """Servers and the model they are asked for. See `captioner.engine.Setup`."""

    endpoints: tuple[str, ...]
    """Addresses up to and without /chat/completions, each once."""
    model: str
    revision: str
    in_flight: int
    """Requests at the same time, an endpoint, at most."""
    image_mode: str = "crop"
    key: str = field(default="", repr=False)
    """Sent to each server as a bearer token; empty sends none."""

    @classmethod
    def of(cls, config: CaptionConfig) -> "HttpSetup":
        """The set-up these settings ask for.

        Raises:
            ConfigError: An endpoint is no http address, or there is no key where one is to be.
        """
        endpoints = tuple(dict.fromkeys(endpoint_base(address) for address in config.endpoints))
        key = _key(config.api_key_env)
        return cls(endpoints, config.model, config.revision, config.in_flight, config.image_mode, key)

    @property
    def kind(self) -> str:
        """Over http."""
        return "http"

    @property
    def name(self) -> str:
        """The model's name, with the revision that the settings say the servers run."""
        return f"{self.model}@{self.revision}" if self.revision else self.model

    @property
    def family(self) -> str:
        """By the model's name."""
        known = [family for family in ("cogvlm", "llava") if family in self.model.lower()]
        return known[0] if known else "other"

    @property
    def is_demo(self) -> bool:
        """Whether the servers are asked for the small model that comes with popfactory."""
        return self.model == DEMO_FOLDER.name

    @property
    def fingerprint(self) -> str:
        """Digest of the name and of how pictures are sent; what the servers do with them they don't tell."""
        content = ["http", self.model, self.revision, f"{PREPROCESSING[self.image_mode]}; {SENT}"]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def batch_size(self) -> int:
        """Two rounds of what is in flight."""
        return 2 * self.in_flight * len(self.endpoints)

    @property
    def overlap(self) -> int:
        """Two, so that while a batch waits for its last answers the next one is under way."""
        return 2

    def load(self) -> "HttpEngine":
        """Connect, and ask each server whether it has the model; see the constructor of HttpEngine."""
        return HttpEngine(self)


class HttpEngine:
    """Servers, connected. See `captioner.engine.Engine`."""

    def __init__(self, setup: HttpSetup) -> None:
        """Connect, and ask each server whether it has the model.

        Raises:
            ServiceError: One doesn't answer, or doesn't have it.
        """
        self.setup = setup
        self._servers = {endpoint: _connections(endpoint, setup) for endpoint in setup.endpoints}
        self._lanes = Lanes(setup.endpoints, setup.in_flight)
        self._shortest: int | None = None
        self._workers = PictureWorkers()
        self._closed, self._handing_over = False, threading.Lock()
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="caption servers", daemon=True)
        self._thread.start()
        try:
            self._do(self._check())
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Give up what is being asked, and close the connections; who asks from now on is told so."""
        with self._handing_over:
            if not self._closed:
                self._closed = True
                self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._workers.close()

    def _run(self) -> None:
        """Do what is handed over until the engine is closed, and give up what is left then."""
        self._loop.run_forever()
        self._loop.run_until_complete(self._shut())
        self._loop.close()

    async def _shut(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        for server in self._servers.values():
            await server.close()

    def _do(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Have it done where the connections live; any thread may wait for it."""
        # Under the lock: what reached the loop after it has stopped nobody would do, and who asked would wait for ever.
        with self._handing_over:
            if self._closed:
                work.close()
                raise RuntimeError("the connections to the caption servers are closed")
            asked = asyncio.run_coroutine_threadsafe(work, self._loop)
        return asked.result()

    def read(self, wanted: Wanted | None, mode: str) -> Prepared | CaptionFailure:
        """Read one picture and make it ready to be sent; see `captioner.engine.Engine.read`."""
        name = wanted.place if wanted is not None else ""
        found = self._workers.ask(name, read_to_send, wanted, mode)
        return CaptionFailure(found.reason, found.message) if isinstance(found, Refused) else found

    def describe(
        self,
        images: Sequence[Image.Image | Prepared],
        prompt: Prompt,
        max_new_tokens: int,
        repetition_penalty: float = 1.0,
        sampling: Sampling | None = None,
        heard: Heard | None = None,
    ) -> list[Reply | CaptionFailure]:
        """Describe the pictures, as many at once as may be in flight; see `captioner.engine.Engine.describe`."""
        self._shortest = min(self._shortest or max_new_tokens, max_new_tokens)
        fields: dict[str, Any] = {"max_tokens": max_new_tokens, "temperature": 0}
        if sampling is not None:
            fields |= {"temperature": sampling.temperature, "top_p": sampling.top_p, "seed": sampling.seed}
        if repetition_penalty != 1:
            # No field of OpenAI's: vLLM, SGLang and LMDeploy know the first, llama.cpp the second.
            fields |= {"repetition_penalty": repetition_penalty, "repeat_penalty": repetition_penalty}
        return self._do(self._describe(images, prompt, fields, heard))

    async def _describe(
        self,
        images: Sequence[Image.Image | Prepared],
        prompt: Prompt,
        fields: dict[str, Any],
        heard: Heard | None,
    ) -> list[Reply | CaptionFailure]:
        question = Question.of(prompt, {"model": self.setup.model, **fields})
        # Beside those under way as many more, encoded and ready to go.
        places = asyncio.Semaphore(2 * self.setup.in_flight * len(self.setup.endpoints))

        async def one(place: int, image: Image.Image | Prepared) -> Reply | CaptionFailure:
            async with places:
                picture = (
                    image if isinstance(image, Prepared) else await asyncio.to_thread(ready_to_send, image)
                )
                answer = await self._ask(picture, prompt, question)
            if heard is not None and isinstance(answer, Reply):
                heard(place, answer)
            return answer

        tasks = [asyncio.create_task(one(place, image)) for place, image in enumerate(images)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self, picture: Prepared, prompt: Prompt, question: Question) -> Reply | CaptionFailure:
        """One picture's whole story: asked, told to wait, asked again."""
        body = question.body(picture)
        attempts = busy = 0
        while True:
            lane = await self._lanes.enter()
            probe = lane.probing
            answer = await self._post(lane, self._probe(prompt) if probe else body, probe)
            if self._lanes.gone:
                raise ServiceError(
                    f"no caption server gives a caption, not even of a plain grey picture: {self._lanes.complaint}; "
                    "set the servers right or start them again, and then the same command goes on"
                )
            unheard = isinstance(answer, CaptionFailure) and answer.reason == UNREACHABLE
            if isinstance(answer, Busy) or (unheard and not probe):
                busy += 1
                if busy > MAX_BUSY:
                    raise ServiceError(
                        f"the caption servers were busy or gone {busy} times in a row; lower [caption] in_flight"
                    )
                await asyncio.sleep(pause_s(busy, answer.wait_s if isinstance(answer, Busy) else 0.0))
                continue
            if probe:
                continue  # to where there is place: here, if the probe went well
            attempts += 1
            if isinstance(answer, Reply):
                return replace(answer, attempts=attempts)
            if answer.reason == "refused" or attempts == MAX_ATTEMPTS:
                return CaptionFailure(answer.reason, answer.message, attempts)
            await asyncio.sleep(pause_s(attempts, None))

    def _probe(self, prompt: Prompt) -> Sequence[bytes]:
        """The question of a picture that nothing is wrong with.

        As short as any that was asked, and without the fields of a second try: a server may refuse those.
        """
        fields = {"model": self.setup.model, "max_tokens": self._shortest, "temperature": 0}
        return Question.of(prompt, fields).body(ready_to_send(blank_picture()))

    async def _post(self, lane: Lane, body: Sequence[bytes], probe: bool) -> "Reply | CaptionFailure | Busy":
        """One request in a lane, which is told how it went."""
        answer: Reply | CaptionFailure | Busy | None = None
        try:
            answer = await self._answer(lane.address, body)
            return answer
        finally:
            now = time.monotonic()
            match answer:
                case None:
                    lane.dropped()
                case Busy(wait_s):
                    lane.slowed(now, wait_s)
                case CaptionFailure(reason, message):
                    unheard, late = reason == UNREACHABLE, reason == "timeout"
                    lane.failed(now, message, probe=probe, unheard=unheard, late=late)
                case _:
                    lane.answered(now)
            self._lanes.wake()

    async def _answer(self, endpoint: str, body: Sequence[bytes]) -> "Reply | CaptionFailure | Busy":
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                answered = await self._servers[endpoint].post(body)
        except TimeoutError:
            return CaptionFailure("timeout", f"{endpoint}: no answer within {REQUEST_TIMEOUT_S:.0f} s")
        except Unreachable as error:
            return CaptionFailure(UNREACHABLE, f"{endpoint}: can't be reached ({error})")
        except BrokenOff as error:
            return CaptionFailure("server_error", f"{endpoint}: broke off ({error})")
        if self.setup.key:  # what a server says goes into messages and tables
            content = answered.content.replace(self.setup.key.encode(), b"***")
            answered = replace(answered, content=content)
        return understood(endpoint, answered)

    async def _check(self) -> None:
        headers = {"Authorization": f"Bearer {self.setup.key}"} if self.setup.key else {}
        for endpoint in self.setup.endpoints:
            client = httpx.AsyncClient(
                verify=certificates(),
                timeout=CONNECT_S,
                headers=headers,
                trust_env=needs_proxy(endpoint),
            )
            try:
                async with client:
                    response = await client.get(f"{endpoint}/models")
                listed = [str(entry["id"]) for entry in response.raise_for_status().json()["data"]]
            except httpx.HTTPError as error:
                raise ServiceError(
                    f"[caption] endpoints: {endpoint}/models gives no list of models ({error}); "
                    "start the server, or correct the address"
                ) from None
            except (ValueError, KeyError, TypeError):
                raise ServiceError(
                    f"[caption] endpoints: {endpoint} is no OpenAI-compatible server"
                ) from None
            if self.setup.model not in listed:
                raise ServiceError(
                    f"[caption] model = {self.setup.model!r}: {endpoint} has {', '.join(listed) or 'none'}"
                )


def _connections(endpoint: str, setup: HttpSetup) -> Connections | ProxiedConnections:
    if needs_proxy(endpoint):
        return ProxiedConnections(endpoint, setup.key, setup.in_flight)
    return Connections(endpoint, setup.key)


def _key(variable: str) -> str:
    """The key in an environment variable. What is wrong is said without the setting's value: it may be a key itself."""
    if not variable:
        return ""
    if not variable.replace("_", "").isalnum() or not variable.isupper():
        raise ConfigError(
            "[caption] api_key_env: the NAME of an environment variable was needed, such as CAPTION_API_KEY; "
            "a key itself must not stand in the settings"
        )
    key = os.environ.get(variable, "")
    if not key:
        raise ConfigError(f"[caption] api_key_env = {variable!r}: this environment variable is not set")
    if not key.isascii() or not key.isprintable() or key != key.strip():
        raise ConfigError(f"[caption] api_key_env: the key in {variable} has signs that no key can have")
    return key
