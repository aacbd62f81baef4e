"""What a step of Muon costs: python -m bench.optimizers [--part muon] [--json]

GPT-2 shape with width 768, 8 rows of 1,024 tokens, in the precision and with the threads that Sanbu chooses here. The
share is the time of the optimizer's step divided by that of the whole training step; the peer is torch.optim.Muon.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from typing import Any

from bench.together import side_by_side

LAYERS, WIDTH, TIME, ROWS, VOCABULARY = 4, 768, 1024, 8, 4096


def step_times(peer: bool) -> Callable[[], float]:
    """The optimizer's share of a training step, median of three steps."""
    import torch

    from sanbu.machine import MachineConfig, decide
    from sanbu.models.tokens.gpt import GPT2
    from sanbu.objectives.next_token import next_token
    from sanbu.optimizers.muon import MuonOptimizer
    from sanbu.optimizers.roles import roles
    from sanbu.space import Space

    machine = decide(MachineConfig())
    model = GPT2(layers=LAYERS, heads=12, width=WIDTH, context=TIME).build(Space((TIME,), VOCABULARY))
    matrices = roles({"model": model})["matrix"]
    kind: Any = torch.optim.Muon if peer else MuonOptimizer
    optimizer = kind(matrices, lr=1e-3)
    tokens = torch.randint(0, VOCABULARY, (ROWS, TIME))
    batch, objective = {"tokens": tokens, "targets": tokens.roll(-1, 1)}, next_token()

    def one() -> tuple[float, float]:
        begun = time.perf_counter()
        with machine.scope():
            sum(objective.loss({"model": model}, batch).sums.values()).backward()  # type: ignore[union-attr]
        learnt = time.perf_counter()
        optimizer.step()
        ended = time.perf_counter()
        model.zero_grad()
        return learnt - begun, ended - learnt

    one()

    def measure() -> float:
        spent = [one() for _ in range(3)]
        return sorted(update / (learning + update) for learning, update in spent)[1]

    return measure


def muon() -> dict[str, float]:
    """The share of Sanbu's Muon and of torch's."""
    found = side_by_side({"sanbu": (step_times, (False,)), "torch": (step_times, (True,))}, 2)
    return {"muon.share": 100 * found["sanbu"], "muon.peer": 100 * found["torch"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=("muon",))
    parser.add_argument("--json", action="store_true")
    parser.parse_args()
    print(json.dumps(muon()))


if __name__ == "__main__":
    main()
