"""Fetching in several processes: hosts are divided among them, rows come back to the one that writes.

One process of Python can't keep several cores busy with connections. Each of these has threads, connections and
decoders of its own, and all addresses of its hosts, so that what is asked of a host at the same time, and how
often, is what one process would ask.
"""

import contextlib
import heapq
import json
import multiprocessing
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.sharedctypes import Synchronized
from pathlib import Path
from urllib.parse import urlsplit

from curation.downloads import DiskBudget
from curation.host_queue import Row, host_of
from curation.intake import Intake, Sizes
from spine.errors import DataError, FactoryError
from spine.lists import LOOK_EVERY_S, ListsInForce
from spine.run import Run
from spine.settings import Config
from spine.web import Web
from spine.workers import follow_parent, interrupts_held

WORTH = 2_000
"""Addresses for which another process is worth its start."""

_END_S = 10  # seconds for a process to end that has sent all


def processes_for(config: Config, candidates: Sequence[Row]) -> int:
    """How many processes are to fetch these: as set, else one for WORTH addresses, for half of the cores at most."""
    if config.fetch.processes:
        return config.fetch.processes
    addresses = sum(host_of(each) != "" for each in candidates)
    return max(1, min(addresses // WORTH, (os.cpu_count() or 1) // 2))


def divided(candidates: Sequence[Row], processes: int) -> list[list[Row]]:
    """The pictures of each process: all of a domain to one of them, and each about as many.

    Where a host sends on to another of its domain, it is the same process that asks there.
    """
    sizes = Counter(map(_domain, candidates))
    here = sizes.pop("", 0)
    loads = [(0, number) for number in range(processes)]
    of_domain = {}
    for domain, size in sorted(sizes.items(), key=lambda each: (-each[1], each[0])):
        load, number = heapq.heappop(loads)
        of_domain[domain] = number
        heapq.heappush(loads, (load + size, number))
    shares: list[list[Row]] = [[] for _ in range(processes)]
    for candidate in candidates:
        domain = _domain(candidate)
        if domain:
            shares[of_domain[domain]].append(candidate)
        else:  # on this machine: nobody's patience is at stake
            here -= 1
            shares[here % processes].append(candidate)
    return [share for share in shares if share]


def _domain(candidate: Row) -> str:
    """The last two labels of a host's name, or its number."""
    host = host_of(candidate)
    name = urlsplit(host).netloc.partition(":")[0] if host else ""
    return name if re.fullmatch(r"[\d.]*", name) else ".".join(name.split(".")[-2:])


@dataclass(frozen=True, slots=True)
class Task:
    """What the processes share."""

    folder: Path
    """The run's."""
    config: Config
    web: Web | None
    sizes: Sizes | None


def fetch_divided(task: Task, candidates: Sequence[Row], processes: int) -> Iterator[Row]:
    """The row of each picture, as they come; fetched by so many processes.

    Raises:
        DataError: The disk budget is used up, a process was ended from outside, or one of several can't read a list.
        ConfigError: The only process can't read a list.
        OSError: The disk is full, for one.
    """
    if processes == 1:
        with ExitStack() as stack:
            yield from _intake(task, stack, None).bring(candidates)
        return
    shares = divided(candidates, processes)
    context = multiprocessing.get_context("spawn")
    used = context.Value("q", DiskBudget.used_in(Run(task.folder).images))
    settings = task.config.fetch
    own = replace(
        settings,
        concurrency=max(1, settings.concurrency // len(shares)),
        workers=max(1, (settings.workers or os.cpu_count() or 1) // len(shares)),
    )
    given = replace(task, config=replace(task.config, fetch=own))
    at_work: dict[Connection, BaseProcess] = {}
    try:
        for _ in shares:
            ours, theirs = context.Pipe()
            process: BaseProcess = context.Process(target=_fetch, args=(theirs, given, used), name="fetch")
            with interrupts_held():
                process.start()
            theirs.close()
            at_work[ours] = process
        for pipe, share in zip(at_work, shares, strict=True):
            # Not with its start, which would wait until it has read it, and the next start with it.
            with contextlib.suppress(OSError):  # it ended: _rows says so
                pipe.send(share)
        yield from _rows(at_work)
        for process in at_work.values():
            process.join(_END_S)  # it ends its own processes
    finally:
        for pipe, process in at_work.items():
            process.kill()
            process.join()
            pipe.close()


def _rows(at_work: dict[Connection, BaseProcess]) -> Iterator[Row]:
    """What the processes send, until the last has sent all."""
    open_pipes = set(at_work)
    while open_pipes:
        for pipe in wait(list(open_pipes)):
            if not isinstance(pipe, Connection):
                raise TypeError("only pipes were waited for")
            try:
                message = json.loads(pipe.recv_bytes())
            except (EOFError, OSError):
                raise DataError(_ended(at_work[pipe])) from None
            if "row" in message:
                yield message["row"]
            elif "error" in message:
                raise DataError(message["error"])
            elif "failure" in message:
                raise OSError(*message["failure"])
            else:
                open_pipes.discard(pipe)


def _ended(process: BaseProcess) -> str:
    process.join()
    return (
        f"a process that fetches ended with code {process.exitcode}, out of memory perhaps; what is fetched stays: "
        "lower [fetch] concurrency, or set [fetch] processes to 1, and fetch again"
    )


def _fetch(pipe: Connection, task: Task, used: "Synchronized[int]") -> None:
    """Be sent a share, fetch it and send its rows; in a process of its own."""
    follow_parent()
    with contextlib.suppress(EOFError, BrokenPipeError), ExitStack() as stack:
        try:
            for row in _intake(task, stack, used).bring(pipe.recv()):
                pipe.send_bytes(json.dumps({"row": row}).encode())
            pipe.send_bytes(b'{"done": true}')
        except FactoryError as error:
            pipe.send_bytes(json.dumps({"error": str(error)}).encode())
        except OSError as error:  # a full disk, for one
            if error.errno is None:
                raise
            failure = (error.errno, error.strerror, error.filename)
            pipe.send_bytes(json.dumps({"failure": failure}).encode())


def _intake(task: Task, stack: ExitStack, used: "Synchronized[int] | None") -> Intake:
    run = Run(task.folder)
    return Intake(run, task.config, ListsInForce(run, LOOK_EVERY_S), task.web, stack, task.sizes, used)
