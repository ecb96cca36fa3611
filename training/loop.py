"""The loop of both last phases: steps by the clock, averaged over ranks, kept every few minutes and at the end."""

import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from torch import Tensor

from training.ranks import Clock, Optimizer, average_gradients, cpu_seconds


def train_by_the_clock(
    loss_of: Callable[[], tuple[Tensor, str]],
    optimizer: Optimizer,
    keep: Callable[[], None],
    *,
    rank: int,
    minutes: float,
    keep_every_s: float,
    log: Path,
    seen: str,
    seen_a_step: int,
    frozen: Callable[[float], Iterable[float]] = lambda share: (),
) -> None:
    """Train until the time is up; rank 0 keeps the model and writes down what it took.

    Args:
        loss_of: Draws a batch; its loss, and what else is to be printed of it.
        optimizer: Of all parameters.
        keep: Publishes the model as it is.
        rank: Of this process.
        minutes: To train.
        keep_every_s: Seconds between two keepings.
        log: A line of JSON goes there at the end.
        seen: What is counted in it, such as "pairs_seen".
        seen_a_step: So many of them, of all ranks.
        frozen: Factors of the groups that stand still at a share of the time.
    """
    clock, share, step, kept = Clock(minutes * 60), 0.0, 0, 0.0
    while share < 1.0:
        loss, told = loss_of()
        loss.backward()  # type: ignore[no-untyped-call]
        share = average_gradients(optimizer.parameters, clock.share())
        optimizer.step(share, frozen=frozen(share))
        step += 1
        if rank == 0 and step % 50 == 0:
            spent = time.monotonic() - clock.started
            print(f"{spent:6.0f} s  step {step}  loss {loss.item():.4f}{told}", flush=True)
            if spent - kept > keep_every_s:
                kept = spent
                keep()
    used = cpu_seconds()
    if rank == 0:
        keep()
        report = {
            seen: step * seen_a_step,
            "steps": step,
            "cpu_s": round(used),
            "wall_s": round(minutes * 60),
        }
        with log.open("a") as file:
            file.write(json.dumps(report) + "\n")
        print(json.dumps(report), flush=True)
