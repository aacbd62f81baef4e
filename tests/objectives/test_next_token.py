"""Chunked cross-entropy equals plain cross-entropy; ignored targets and empty batches are harmless."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sanbu.objectives.next_token import chunked_cross_entropy, cross_entropy, next_token, next_token_chunked


@pytest.mark.parametrize("chunk", [1, 7, 64, 1000])
def test_chunked_is_whole_and_is_torch(chunk):
    torch.manual_seed(0)
    head, hidden, targets = (
        nn.Linear(16, 97, bias=False),
        torch.randn(130, 16, requires_grad=True),
        torch.randint(0, 97, (130,)),
    )
    targets[::3] = -100
    ours = chunked_cross_entropy(head, hidden, targets, chunk)
    ours.backward()
    gradients = hidden.grad.clone(), head.weight.grad.clone()
    hidden.grad = head.weight.grad = None
    whole = cross_entropy(head(hidden), targets)
    whole.backward()
    torch.testing.assert_close(ours, whole)
    torch.testing.assert_close(gradients[0], hidden.grad, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(gradients[1], head.weight.grad, atol=1e-5, rtol=1e-5)
    oracle = F.linear_cross_entropy(hidden, head.weight, targets, reduction="sum", ignore_index=-100)
    torch.testing.assert_close(ours, oracle)


def test_chunked_never_holds_all_logits():
    seen = []
    head = nn.Linear(4, 50, bias=False)
    head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    chunked_cross_entropy(head, torch.randn(100, 4, requires_grad=True), torch.randint(0, 50, (100,)), 8).backward()
    assert max(seen) == 8 and len(seen) == 13  # and the backward pass allocates no logits again


@pytest.mark.parametrize("objective", [next_token(), next_token_chunked(8)])
def test_a_batch_that_teaches_nothing_has_loss_zero_and_no_nan(objective):
    from sanbu.models.tokens.gpt import GPT2
    from sanbu.space import Space

    model = GPT2(layers=1, heads=1, width=8, context=4).build(Space((4,), 11))
    batch = {"tokens": torch.zeros(2, 4, dtype=torch.long), "targets": torch.full((2, 4), -100)}
    total = objective.loss({"model": model}, batch).sums["next_token"]
    assert total == 0 and objective.count(batch) == {"next_token": 0.0}
