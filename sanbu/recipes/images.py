"""Pictures, by every strategy. `size="nano"` draws digits of 8 x 8 pixels within minutes on two CPU cores."""

from __future__ import annotations

from typing import Any

from sanbu.config import change
from sanbu.data.image_rows import Images
from sanbu.layers.average import PowerFunction
from sanbu.models.denoisers.dit import DiT
from sanbu.models.denoisers.perceptron import SkipPerceptron
from sanbu.models.denoisers.unet import UNet
from sanbu.models.generators.gan import DCGAN, PerceptronGAN
from sanbu.models.latents.vae import Autoencoder, PerceptronVAE
from sanbu.models.pixels.image_gpt import ImageGPT
from sanbu.models.pixels.pixelcnn import PixelCNN
from sanbu.models.pixels.pixelrnn import DiagonalBiLSTM
from sanbu.objectives.adversarial import Hinge
from sanbu.objectives.consistency import Consistency
from sanbu.objectives.denoising import Denoising
from sanbu.objectives.elbo import Elbo
from sanbu.objectives.likelihood import Likelihood
from sanbu.objectives.times import LogitNormal, LogNormal
from sanbu.optimizers.gradient import Adam, AdamW
from sanbu.optimizers.muon import Muon
from sanbu.optimizers.rate import ConstantRate, LinearRate
from sanbu.optimizers.search import OptimizerConfig
from sanbu.paths import Betas, Exploding
from sanbu.recipe import Recipe, Schedule
from sanbu.recipes.text import pick
from sanbu.strategies.one_shot import OneShot
from sanbu.strategies.pixel_by_pixel import PixelByPixel
from sanbu.strategies.refinement import Refinement

CIFAR = Images(path="hub:uoft-cs/cifar10", shape=(3, 32, 32), levels=256, classes=10, flip=True, drop_label=0.1)


def schedule(steps: int) -> Schedule:
    """A look and a grid of samples ten times a run."""
    every = max(1, steps // 10)
    return Schedule(
        steps=steps, batch=128, evaluate_rows=512, samples=60,
        evaluate_every=every, sample_every=every, checkpoint_every=every,
    )  # fmt: skip


def adamw(rate: float, decay: float = 0.0) -> AdamW:
    """AdamW without weight decay on vectors, warmed up and cooled down linearly."""
    return AdamW(learning_rate=rate, betas=(0.9, 0.99), weight_decay=decay, clip=1.0, rate=LinearRate(hold=0.3))


def recipe(
    name: str, data: Images, model: Any, objective: Any, optimizer: OptimizerConfig, strategy: Any, steps: int
) -> Recipe:
    """What the recipes below have in common: a moving average of the weights, samples on the way."""
    return Recipe(
        name=name, data=data, model=model, objective=objective, optimizer=optimizer, strategy=strategy,
        average=PowerFunction(), schedule=schedule(steps),
    )  # fmt: skip


# -- piece by piece ---------------------------------------------------------------------------------------------------


def pixelcnn(size: str = "nano") -> Recipe:
    """PixelCNN: pixel by pixel with causal convolutions (van den Oord and others, 2016)."""
    shapes = {
        "nano": PixelCNN(width=48, layers=4, dropout=0.1),
        "cifar10": PixelCNN(width=384, layers=20, kernel=5),
    }
    return pieces("pixelcnn", pick(shapes, size), size)


def pixelrnn(size: str = "nano") -> Recipe:
    """PixelRNN: pixel by pixel with Diagonal BiLSTMs (van den Oord and others, 2016)."""
    shapes = {"nano": DiagonalBiLSTM(width=32, layers=2), "cifar10": DiagonalBiLSTM(width=128, layers=12)}
    return pieces("pixelrnn", pick(shapes, size), size)


def image_gpt(size: str = "nano") -> Recipe:
    """Image GPT: the decoder of GPT-2 over pixels (Chen and others, 2020)."""
    shapes = {
        "nano": ImageGPT(width=64, layers=3, heads=4, dropout=0.1),
        "s": ImageGPT(width=512, layers=24, heads=8),
    }
    return pieces("image-gpt", pick(shapes, size), size)


def pieces(name: str, model: Any, size: str) -> Recipe:
    """Likelihood, drawn pixel by pixel. Muon learns a pixel's law in a quarter of Adam's steps (docs/LOG.md)."""
    data, rate = (Images() if size == "nano" else CIFAR), LinearRate(hold=0.3)
    optimizer = Muon(rest=AdamW(learning_rate=4e-3, weight_decay=0.0, clip=None, rate=rate), rate=rate)
    made = recipe(name, data, model, Likelihood(), optimizer, PixelByPixel(), 2000 if size == "nano" else 300_000)
    return made.change(batch=32)


# -- all at once ------------------------------------------------------------------------------------------------------


def vae(size: str = "nano") -> Recipe:
    """VAE: pictures from a Gaussian latent (Kingma and Welling, 2014)."""
    shapes = {
        "nano": PerceptronVAE(width=256, layers=2, latent=16, dropout=0.1),
        "kl-f8": Autoencoder(width=128, layers=2, multipliers=(1, 2, 4, 4), latent=4, groups=32),
    }
    data = Images() if size == "nano" else change(CIFAR, {"shape": (3, 256, 256), "drop_label": 0.0})
    return recipe("vae", data, pick(shapes, size), Elbo(), adamw(1e-3), OneShot(), 3000 if size == "nano" else 300_000)


def gan(size: str = "nano") -> Recipe:
    """GAN: hinge losses, R1 penalty, averaged weights (Goodfellow and others, 2014; Lim and Ye, 2017)."""
    shapes = {"nano": PerceptronGAN(width=256, layers=2, latent=64), "dcgan": DCGAN(width=64, latent=100)}
    nano = size == "nano"
    optimizer = Adam(learning_rate=5e-4 if nano else 2e-4, betas=(0.0, 0.99), rate=ConstantRate())
    data, steps = (Images(), 4000) if nano else (CIFAR, 100_000)
    made = recipe("gan", data, pick(shapes, size), Hinge(r1=1.0), optimizer, OneShot(), steps)
    return made.change(average=PowerFunction(lengths=(0.01, 0.1)))


# -- in N refinements -------------------------------------------------------------------------------------------------


def ddpm(size: str = "nano") -> Recipe:
    """DDPM: a U-Net that removes noise in many steps (Ho, Jain and Abbeel, 2020), sampled by DDIM."""
    shapes = {
        "nano": UNet(width=32, path=Betas(), target="noise"),
        "cifar10": UNet(
            width=128, multipliers=(1, 2, 2, 2), layers=2, attention=(1,), head_width=256, groups=32, dropout=0.1,
            path=Betas(), target="noise",
        ),
    }  # fmt: skip
    strategy = Refinement(sampler="ddim", steps=50, clip=True)  # as in the paper
    return denoiser_recipe("ddpm", shapes, size, Denoising(), strategy)


def edm(size: str = "nano") -> Recipe:
    """EDM: preconditioned denoising over noise levels, sampled by Heun's method (Karras and others, 2022)."""
    shapes = {
        "nano": SkipPerceptron(
            width=256, layers=3, path=Exploding(sigma_max=20.0), target="preconditioned", deviation=0.6
        ),
        "cifar10": UNet(
            width=128, multipliers=(2, 2, 2), layers=4, attention=(1,), head_width=64, groups=32, dropout=0.13,
            path=Exploding(), target="preconditioned",
        ),
    }  # fmt: skip
    objective = Denoising(times=LogNormal())
    return denoiser_recipe("edm", shapes, size, objective, Refinement(sampler="heun", steps=18))


def flow(size: str = "nano") -> Recipe:
    """Flow matching: the velocity of the straight path from noise to picture (Lipman and others, 2023)."""
    shapes = {
        "nano": SkipPerceptron(width=256, layers=3),
        "cifar10": UNet(width=128, multipliers=(1, 2, 2, 2), layers=2, attention=(1,), head_width=64, groups=32),
    }
    return denoiser_recipe("flow", shapes, size, Denoising(times=LogitNormal()), Refinement(sampler="euler", steps=16))


def dit(size: str = "nano") -> Recipe:
    """DiT: diffusion with a transformer over patches (Peebles and Xie, 2023)."""
    path: dict[str, Any] = {"path": Betas(), "target": "noise"}
    shapes = {"nano": DiT(width=96, layers=3, heads=4, **path)}
    for name, (layers, width, heads) in {
        "s": (12, 384, 6),
        "b": (12, 768, 12),
        "l": (24, 1024, 16),
        "xl": (28, 1152, 16),
    }.items():
        shapes[name] = DiT(width=width, layers=layers, heads=heads, **path)
    return denoiser_recipe("dit", shapes, size, Denoising(), Refinement(sampler="ddim", steps=50))


def consistency(size: str = "nano", teacher: str = "") -> Recipe:
    """Consistency: one step from noise; teacher=RUN tunes an edm run (Song and others, 2023; Geng and others, 2024)."""
    base = edm(size)
    strategy = Refinement(sampler="consistency", steps=1)
    parents = {"model": teacher} if teacher else {}
    objective = Consistency(stage=max(1, base.schedule.steps // 8))
    return base.change(name="consistency", objective=objective, strategy=strategy, parents=parents)


def denoiser_recipe(name: str, shapes: dict[str, Any], size: str, objective: Any, strategy: Refinement) -> Recipe:
    """A denoiser that also learns without labels, so that it can be guided."""
    data = Images(drop_label=0.1) if size == "nano" else CIFAR
    steps = 4000 if size == "nano" else 400_000
    return recipe(name, data, pick(shapes, size), objective, adamw(2e-3 if size == "nano" else 2e-4), strategy, steps)
