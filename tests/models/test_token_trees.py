"""Trees over the last tokens: laws of scikit-learn's leaves, states, documents, drawing."""

import pytest
import torch

from sanbu.files import load_weights, read_tensors, weights, write_tensors
from sanbu.models.tokens.token_trees import TokenTrees, grown
from sanbu.space import Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.testing import check_strategy

SPACE = Space((16,), 7, end=6)


def stream(size=4000):
    """A chain in which the next token follows from the last two, with some noise."""
    generator = torch.Generator().manual_seed(0)
    found = [0, 1]
    noise = torch.rand(size, generator=generator).tolist()
    other = torch.randint(6, (size,), generator=generator).tolist()
    for chance, token in zip(noise, other, strict=True):
        found.append((found[-1] + 2 * found[-2]) % 6 if chance < 0.9 else token)
    return torch.tensor([found])


@pytest.fixture(scope="module")
def model():
    tokens = stream()
    model = TokenTrees(reach=3, trees=4, leaves=64, sample=3000).build(SPACE)
    model.fit({"tokens": tokens[:, :-1], "targets": tokens[:, 1:]})
    return model.eval()


def test_it_learns_a_chain_of_order_two(model):
    """Its entropy is 0.42 nats (0.917 for one token, 0.0167 for five); a token alone leaves 1.7, a guess 1.8."""
    tokens = stream(6000)[:, 4000:]
    nats = -model(tokens[:, :-1]).gather(2, tokens[:, 1:, None]).mean()
    assert float(nats) < 0.6 and (model(tokens[:, :9]).exp().sum(-1) - 1).abs().max() < 1e-5


def test_leaves_are_those_of_scikit_learn():
    from sklearn.tree import DecisionTreeClassifier

    x = torch.randn(300, 4).numpy()
    y = torch.randint(5, (300,)).numpy()
    config = TokenTrees(leaves=20, leaf=3)
    tree = grown(x, y, config, 7, 3)
    peer = DecisionTreeClassifier(
        criterion="entropy", max_leaf_nodes=20, min_samples_leaf=3, max_features=0.5, random_state=3
    ).fit(x, y)
    expected = torch.zeros(300, 7, dtype=torch.double)
    expected[:, peer.classes_] = torch.from_numpy(peer.predict_proba(x))
    torch.testing.assert_close(torch.from_numpy(tree.values[peer.apply(x)]).double(), expected, rtol=1e-6, atol=1e-6)


def test_a_row_read_in_parts_and_a_document_within_a_row(model):
    row = stream(20)[:, :12]
    cache = model.cache(1, 0)
    parts = [model(part, torch.zeros_like(part), cache) for part in row.split([5, 1, 6], 1)]
    assert torch.cat(parts, 1).equal(model(row))
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6]])
    assert model(row, positions)[:, 5:].equal(model(row[:, 5:]))


def test_prompts_of_unequal_length_are_drawn_as_each_alone(model):
    condition = {"tokens": stream(20)[:, :8].expand(3, 8).clone(), "length": torch.tensor([1, 8, 4])}
    check_strategy(Autoregressive(max_tokens=10, prefill=3), {"model": model}, SPACE, condition)


def test_weights_survive_a_file(model, tmp_path):
    other = TokenTrees(reach=3, trees=4, leaves=64, sample=3000).build(SPACE)
    write_tensors(tmp_path / "model.safetensors", weights(model))
    load_weights(other, read_tensors(tmp_path / "model.safetensors"), tmp_path)
    tokens = stream(30)[:, :20]
    assert other(tokens).equal(model(tokens))
