"""One single-threaded process a core, gradients averaged in one flat message a step."""

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn


@dataclass
class Clock:
    """How much of the time given is used. Training ends by the clock: the machine may be shared."""

    budget_s: float
    started: float = field(default_factory=time.monotonic)

    def share(self) -> float:
        """0 at the start to 1 at the end."""
        return min(1.0, (time.monotonic() - self.started) / self.budget_s)


def launch(main: Callable[..., None], ranks: int, *args: Any) -> None:
    """Run main(rank, ranks, *args) in `ranks` processes that can average gradients."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    with tempfile.TemporaryDirectory() as folder:
        mp.spawn(  # type: ignore[attr-defined, no-untyped-call]
            _start, args=(main, ranks, f"file://{folder}/meeting", args), nprocs=ranks
        )


def _start(rank: int, main: Callable[..., None], ranks: int, meeting: str, args: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    if ranks > 1:
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=ranks)
    main(rank, ranks, *args)
    if ranks > 1:
        dist.destroy_process_group()


def average_gradients(parameters: list[nn.Parameter], share: float) -> float:
    """Average gradients, and the share of time used, over all ranks; returns that share."""
    if not dist.is_initialized():
        return share
    grads = [p.grad if p.grad is not None else torch.zeros_like(p) for p in parameters]
    flat = torch.cat([g.reshape(-1) for g in grads] + [torch.tensor([share])])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    at = 0
    for p in parameters:
        p.grad = flat[at : at + p.numel()].view_as(p)
        at += p.numel()
    return float(flat[-1])


def cpu_seconds() -> float:
    """CPU time of all ranks so far."""
    used = torch.tensor([time.process_time()])
    if dist.is_initialized():
        dist.all_reduce(used)
    return float(used)


@dataclass
class Optimizer:
    """Muon for the matrices inside blocks, AdamW for all else, warm-up and cosine by the clock."""

    named: list[tuple[str, nn.Parameter]]
    lr: float
    slow: Callable[[str], float] = lambda name: 1.0
    """Factor on the learning rate of a parameter, by name."""

    def __post_init__(self) -> None:
        groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
        for name, parameter in self.named:
            matrix = parameter.ndim == 2 and "embed" not in name and "head" not in name
            groups.setdefault((matrix, self.slow(name)), []).append(parameter)
        muon = [{"params": ps, "factor": f} for (matrix, f), ps in groups.items() if matrix]
        adam = [{"params": ps, "factor": f} for (matrix, f), ps in groups.items() if not matrix]
        self.parts = [
            torch.optim.Muon(
                muon, lr=self.lr, momentum=0.95, weight_decay=0.05, adjust_lr_fn="match_rms_adamw"
            ),
            torch.optim.AdamW(adam, lr=self.lr, betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.parameters: list[nn.Parameter] = [p for _, p in self.named]
        self.step_number = 0

    def step(self, share: float, frozen: Iterable[float] = ()) -> None:
        """Take one step; `share` of the time is used; groups of a factor in `frozen` stand still."""
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.step_number += 1
        rate = (
            self.lr * (0.03 + 0.97 * 0.5 * (1 + math.cos(math.pi * share))) * min(1.0, self.step_number / 30)
        )
        for part in self.parts:
            for group in part.param_groups:
                group["lr"] = 0.0 if group["factor"] in frozen else rate * group["factor"]
            part.step()
            part.zero_grad(set_to_none=True)
