"""A limit on the memory of one process, page cache included: a control group of Linux, where this user may make one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_ROOT = Path("/sys/fs/cgroup")


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[Path | None]:
    """A new group below this process's own, for `join`; gone afterwards. None where none can be made.

    Args:
        limit_bytes: What its processes may use together, of memory and of the page cache.
    """
    group = None
    for own, limit in _places():
        made = own / f"popfactory-benchmark-{os.getpid()}"
        try:
            made.mkdir()
        except OSError:
            continue
        try:
            (made / limit).write_text(str(limit_bytes), encoding="ascii")
        except OSError:  # of version 2, where memory isn't handed down
            made.rmdir()
            continue
        group = made
        break
    try:
        yield group
    finally:
        if group is not None:
            with suppress(OSError):  # a process of it may still be ending
                group.rmdir()


def join(group: Path) -> None:
    """Let this process, from now on, use no more than the group may."""
    (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")


def _places() -> Iterator[tuple[Path, str]]:
    """This process's own groups of memory, and their files for the limit: version 1, then 2."""
    try:
        lines = Path("/proc/self/cgroup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return
    for line in sorted(lines, reverse=True):
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            yield _ROOT / "memory" / path.lstrip("/"), "memory.limit_in_bytes"
        elif not controllers:
            yield _ROOT / path.lstrip("/"), "memory.max"
