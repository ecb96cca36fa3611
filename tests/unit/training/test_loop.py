import json

import torch
from torch import nn

from training.loop import train_by_the_clock
from training.ranks import Optimizer


def test_a_model_is_trained_kept_and_written_down(tmp_path):
    torch.manual_seed(0)
    model, wanted = nn.Linear(4, 1), torch.tensor([[1.0, -2.0, 0.5, 3.0]])
    optimizer = Optimizer(list(model.named_parameters()), lr=0.05)
    losses, kept = [], []

    def loss_of():
        inputs = torch.randn(32, 4)
        loss = ((model(inputs) - inputs @ wanted.T) ** 2).mean()
        losses.append(loss.item())
        return loss, ""

    train_by_the_clock(
        loss_of,
        optimizer,
        lambda: kept.append(len(losses)),
        rank=0,
        minutes=0.01,
        keep_every_s=60,
        log=tmp_path / "log.jsonl",
        seen="rows_seen",
        seen_a_step=32,
    )

    told = json.loads((tmp_path / "log.jsonl").read_text())
    assert told["steps"] == len(losses) == kept[-1] and told["rows_seen"] == 32 * len(losses)
    assert min(losses) < losses[0]
