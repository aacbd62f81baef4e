"""Pixel models: probabilities sum to one, are causal, and cached sampling equals sampling by full forward passes."""

import itertools
import math

import pytest
import torch

from sanbu import recipes
from sanbu.memory.cost import cost
from sanbu.models.denoisers.dit import DiT
from sanbu.models.denoisers.perceptron import PerceptronDenoiser, SkipPerceptron
from sanbu.models.denoisers.unet import UNet
from sanbu.models.generators.gan import DCGAN, PerceptronGAN
from sanbu.models.latents.vae import Autoencoder, PerceptronVAE
from sanbu.models.pixels.image_gpt import ImageGPT
from sanbu.models.pixels.pixelcnn import PixelCNN
from sanbu.models.pixels.pixelrnn import DiagonalBiLSTM, RowLSTM
from sanbu.space import Space
from sanbu.strategies.pixel_by_pixel import PixelByPixel
from sanbu.strategies.strategy import generate, last
from sanbu.testing import check_model

TINY = Space((1, 2, 2), 3, classes=2)
PIXELS = {
    "pixelcnn": PixelCNN(width=8, layers=2),
    "logistics": PixelCNN(width=8, layers=2, components=3, kernel=5),
    "row-lstm": RowLSTM(width=8, layers=2),
    "diagonal-bilstm": DiagonalBiLSTM(width=8, layers=2),
    "image-gpt": ImageGPT(width=8, layers=2, heads=2),
}


def shaken(config, space):
    """A model with all weights far from zero, so that every path affects the output."""
    model = config.build(space).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 1, 2)], ids=str)
def test_likelihoods_of_all_pictures_sum_to_one(name, shape):
    model = shaken(PIXELS[name], Space(shape, 3, classes=2))
    size = math.prod(shape)
    every = torch.tensor(list(itertools.product(range(3), repeat=size))).view(-1, *shape)
    for label in (0, 1, 2):
        with torch.no_grad():
            total = model(every, torch.full((len(every),), label)).double().flatten(1).sum(1).exp().sum()
        assert abs(float(total) - 1) < 1e-5


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("shape", [(1, 4, 4), (3, 3, 3)], ids=str)
def test_a_level_depends_on_exactly_those_before_it(name, shape):
    """Changing one level leaves its own and all earlier distributions unchanged, and changes a later one."""
    space = Space(shape, 5)
    model = shaken(PIXELS[name], space)
    C, H, W = shape
    label = torch.zeros(1, dtype=torch.long)
    levels = torch.randint(0, 5, (1, *shape))

    def laws(levels):
        cache = model.cache(1)
        with torch.no_grad():
            return torch.stack([model.next(levels, label, i, cache).log_softmax(-1)[0] for i in range(C * H * W)])

    before = laws(levels)
    reached = set()
    for index in range(C * H * W):
        place, channel = divmod(index, C)
        changed = levels.clone()
        changed[0, channel, place // W, place % W] = (changed[0, channel, place // W, place % W] + 2) % 5
        moved = (laws(changed) - before).abs().amax(1) > 1e-7
        assert not moved[: index + 1].any(), f"the law of level {moved.nonzero()[0].item()} has seen level {index}"
        reached |= {(index, int(after)) for after in moved.nonzero()}
    if name in ("diagonal-bilstm", "image-gpt"):  # these have an unlimited receptive field, the others a limited one
        assert len(reached) == C * H * W * (C * H * W - 1) // 2


@pytest.mark.parametrize("name", PIXELS)
def test_no_gradient_comes_from_later_levels(name):
    """The same by gradient, with a differentiable input in place of integer levels."""
    space = Space((1, 4, 4), 5)
    model = shaken(PIXELS[name], space)
    if name == "image-gpt":
        seen = []
        model.decoder.embedding.tokens.register_forward_hook(
            lambda m, i, output: seen.append(output.retain_grad() or output)
        )
        order = lambda: seen[-1].grad[0].abs().sum(-1)[1:]  # token i + 1 encodes level i
    else:
        seen = []
        hook = lambda m, i: (seen.append(i[0].detach().requires_grad_()), (seen[-1],))[1]
        handles = [part.register_forward_pre_hook(hook) for part in (model.above, model.left)]
        assert handles
    levels = torch.randint(0, 5, (1, 1, 4, 4))
    for index in range(16):
        seen.clear()
        output = model(levels, torch.zeros(1, dtype=torch.long))
        output.flatten()[index].backward()
        if name == "image-gpt":
            gradient = order()
            assert not gradient[index:].any()
            assert index == 0 or gradient[:index].any()
        else:
            # padding: `above` shifts rows down, `left` shifts columns right
            above, left = (each.grad[0, 0] for each in seen)
            row, column = divmod(index, 4)
            rows_pad, columns_pad = above.shape[0] - 3, left.shape[1] - 3
            assert not above[rows_pad + row :].any(), "rows from this one on are seen from above"
            assert not left[row, columns_pad + column :].any() and not left[row + 1 :].any()
            assert index == 0 or above[:, :].any() or left[:, :].any()


@pytest.mark.parametrize("name", PIXELS)
@pytest.mark.parametrize("shape", [(1, 5, 4), (3, 4, 3)], ids=str)
def test_drawing_from_what_is_kept_is_drawing_from_whole_passes(name, shape):
    space = Space(shape, 4, classes=3)
    model = shaken(PIXELS[name], space)
    seeds, label = torch.arange(6), torch.tensor([0, 1, 2, 3, 0, 1])
    strategy = PixelByPixel().build(space)
    drawn = last(generate(strategy, {"model": model}, {"label": label}, seeds)).sample

    class Whole:
        """Computes every distribution by a full forward pass over all levels."""

        def cache(self, rows):
            return None

        def next(self, levels, label, index, cache):
            place, channel = divmod(index, shape[0])
            row, column = divmod(place, shape[2])
            every = []
            for level in range(4):
                tried = levels.clone()
                tried[:, channel, row, column] = level
                every.append(model(tried, label)[:, channel, row, column])
            return torch.stack(every, 1)

    again = last(generate(PixelByPixel().build(space), {"model": Whole()}, {"label": label}, seeds)).sample
    assert drawn.equal(again) and len(drawn.unique()) > 1


def test_drawn_levels_follow_the_law():
    """Chi-square test of 20,000 pictures with 16 outcomes against their exact probabilities."""
    space = Space((1, 2, 2), 2)
    model = shaken(PIXELS["pixelcnn"], space)
    rows = 20000
    condition = {"label": torch.zeros(rows, dtype=torch.long)}
    drawn = last(generate(PixelByPixel().build(space), {"model": model}, condition, torch.arange(rows))).sample
    every = torch.tensor(list(itertools.product(range(2), repeat=4))).view(-1, 1, 2, 2)
    with torch.no_grad():
        exact = model(every, torch.zeros(16, dtype=torch.long)).flatten(1).sum(1).exp() * rows
    found = torch.bincount(drawn.flatten(1) @ torch.tensor([8, 4, 2, 1]), minlength=16)
    assert float(((found - exact).square() / exact).sum()) < 44.3  # 0.9999 quantile with 15 degrees of freedom


def test_given_pixels_are_kept_and_the_rest_follows_from_them():
    space = Space((1, 3, 3), 4)
    model = shaken(PIXELS["diagonal-bilstm"], space)
    known = torch.randint(0, 4, (5, 1, 3, 3))
    mask = torch.zeros(5, 1, 3, 3, dtype=torch.bool)
    mask[:, :, :2] = True
    condition = {"label": torch.zeros(5, dtype=torch.long), "known": known, "mask": mask}
    drafts = list(generate(PixelByPixel().build(space), {"model": model}, condition, torch.arange(5)))
    assert drafts[-1].sample[mask].equal(known[mask])
    assert [int(draft.evaluations[0]) for draft in drafts] == list(range(1, 10))


IMAGE, LEVELS = torch.randn(3, 1, 8, 8), torch.randint(0, 17, (3, 1, 8, 8))
LABEL, TIME = torch.tensor([0, 3, 10]), torch.tensor([0.2, 0.5, 0.9])
DIGITS = Space((1, 8, 8), 17, classes=10)
ALL = [
    *((config, (LEVELS, LABEL)) for config in PIXELS.values()),
    (PerceptronVAE(width=16, latent=4), (LEVELS, LABEL, torch.randn(3, 2, 4))),
    (Autoencoder(width=8, groups=4, latent=2), (LEVELS, LABEL, torch.randn(3, 2, 2 * 4 * 4))),
    (PerceptronGAN(width=16, latent=4), (torch.randn(3, 4), LABEL)),
    (DCGAN(width=8, latent=4), (torch.randn(3, 4), LABEL)),
    (PerceptronDenoiser(width=16), (IMAGE, TIME, LABEL)),
    (SkipPerceptron(width=16), (IMAGE, TIME, LABEL)),
    (UNet(width=8, groups=4), (IMAGE, TIME, LABEL)),
    (DiT(width=16, heads=2), (IMAGE, TIME, LABEL)),
]


@pytest.mark.parametrize("number", range(len(ALL)))
def test_conformance(number):
    config, inputs = ALL[number]
    check_model(config, DIGITS, inputs)


@pytest.mark.parametrize(
    "config",
    [UNet(width=8, groups=4, multipliers=(1, 2, 2)), Autoencoder(width=8, groups=4)],
    ids=["unet", "autoencoder"],
)
def test_pictures_of_any_size(config):
    space = Space((3, 9, 14), 256, classes=0)
    model = config.build(space)
    label = torch.zeros(2, dtype=torch.long)
    if config.kind == "unet":
        assert model(torch.randn(2, 3, 9, 14), torch.rand(2), label).shape == (2, 3, 9, 14)
    else:
        assert model.draw(torch.randn(2, math.prod(model.latent)), label).shape == (2, 3, 9, 14)


def test_every_family_is_told_of_the_label():
    for config, inputs in ALL:
        model = shaken(config, DIGITS)
        other = [torch.tensor([5, 5, 5]) if each is LABEL else each for each in inputs]
        assert not torch.allclose(model(*inputs), model(*other)), config.kind


def test_the_cost_of_a_picture_is_counted():
    """Six FLOPs per weight (convolutions: per weight and pixel); no tensor stays on the meta device."""
    recipe = recipes.flow()
    found = cost(recipe)
    model = recipe.model.build(recipe.data.space())
    products = sum(module.weight.numel() for module in model.modules() if isinstance(module, torch.nn.Linear))
    assert found.flops_per_row == 6 * products and found.parameters == sum(p.numel() for p in model.parameters())
    recipe = recipes.ddpm()
    assert cost(recipe).flops_per_row > 6 * 64 * 9 * 32 * 32 * 2
    assert recipe.model.path.alpha(torch.tensor([0.5])).device.type == "cpu"
    for name in ("pixelcnn", "pixelrnn", "image-gpt", "vae", "gan", "dit"):
        assert cost(recipes.find(name)()).flops_per_row > 1e6
