"""Convolutional networks for pictures: conformance, sizes, the published parameter count, and a trunk that is kept."""

import pytest
import torch

from sanbu import recipes
from sanbu.config import ConfigError
from sanbu.files import weights
from sanbu.loop import train
from sanbu.memory.cost import cost
from sanbu.models.predictors.cnn import CNN, WideResNet
from sanbu.models.predictors.reconstructor import Reconstructor
from sanbu.space import Space
from sanbu.testing import check_model

KINDS = [CNN(width=8), WideResNet(depth=10, width=8), Reconstructor(width=8)]


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 7, 9)], ids=str)
def test_conformance(config, shape):
    check_model(
        config, Space(shape, 256, classes=3), (torch.linspace(-1, 1, 2 * 3 * 63).view(2, 3, 7, 9)[:, : shape[0]],)
    )


@pytest.mark.parametrize("config", KINDS, ids=lambda config: config.kind)
def test_a_row_is_the_same_alone_and_in_a_batch(config):
    torch.manual_seed(0)
    model, x = config.build(Space((1, 8, 8), 17, classes=3)), torch.randn(4, 1, 8, 8)
    whole = model(x)
    torch.testing.assert_close(torch.cat([model(row[None]) for row in x]), whole, rtol=1e-4, atol=1e-5)
    assert whole.shape == ((4, 1, 8, 8) if config.kind == "cnn-reconstructor" else (4, 3))


def test_published_size():
    """WRN-28-2 of the FixMatch repositories: 1,467,610 parameters."""
    assert cost(recipes.few_labels(size="cifar10")).parameters == 1_467_610


def test_sizes_that_do_not_fit():
    with pytest.raises(ConfigError, match=r"model.depth: given 20, allowed: 6 n \+ 4"):
        recipes.few_labels().change("model=wide-resnet", "model.depth=20")
    with pytest.raises(ConfigError, match=r"model.width: given 12, but it must be a multiple of model.groups, 8"):
        recipes.few_labels().change("model.width=12")
    with pytest.raises(ConfigError, match=r"reads pictures, but samples of the data have shape \[64\]"):
        recipes.few_labels().change("data=text", "objective=cross-entropy", "data.context=64")


def test_a_classifier_begins_from_the_trunk_of_a_reconstruction(tmp_path):
    first = train(recipes.reconstruct().change("model.width=8"), tmp_path / "first", watchers=[], steps=2, batch=4)
    recipe = recipes.few_labels(start=str(first.folder)).change("model.width=8", steps=0)
    found, before = weights(train(recipe, tmp_path / "run", watchers=[]).model), weights(first.model)
    names = [name for name in found if name.startswith("trunk.")]
    assert len(names) == 9 and all(found[name].equal(before[name]) for name in names)
    assert found.keys() - set(names) == {"head.weight", "head.bias"}
