"""iSTFT head: ConvNeXt blocks at the rate of frames, then magnitude and phase of each, then one inverse STFT.

x_0 = norm(conv(mel));   x_{i+1} = x_i + scale * W_2 gelu(W_1 norm(depthwise(x_i)))
(log|S|, p) = W norm(x_n);   wave = iSTFT(min(|S|, 100) (cos p + i sin p))

Nothing is computed per sample but the transform, so it is an order of magnitude faster than a vocoder that upsamples
(Siuzdak, "Vocos", 2023; Liu and others, "A ConvNet for the 2020s", 2022). With `causal` a frame sees earlier frames
alone; the overlap of the transform still delays the wave by (n_fft - hop) / 2 samples.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from sanbu.layers.spectrogram import Mel, envelope, istft, overlap_add, windowed_frames
from sanbu.models.vocoders.vocoder import Stream, VocoderConfig, Windowed
from sanbu.space import Space

LOUDEST = 100.0  # magnitude


class IstftHead(VocoderConfig):
    """ConvNeXt blocks and an inverse STFT: the fastest vocoder here."""

    family: ClassVar[str] = "vocoder"
    kind: Literal["istft-head"] = "istft-head"
    width: int = Field(192, ge=1, description="channels")
    layers: int = Field(6, ge=1, description="ConvNeXt blocks")
    inner: int = Field(3, ge=1, description="width inside a block, in multiples of the width")
    kernel: int = Field(7, ge=1, description="frames that a depthwise convolution sees; odd")
    causal: bool = Field(False, description="a frame sees earlier frames alone, for streams")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.kernel % 2 == 0:
            raise ValueError(f"model.kernel: given {self.kernel}, allowed: odd numbers")

    def build(self, space: Space) -> nn.Module:
        return IstftVocoder(self, space.mel)


class FrameConvolution(nn.Conv1d):
    """A convolution over frames that keeps their number: centred, or causal. Kernel of odd length."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int, causal: bool) -> None:
        super().__init__(inputs, outputs, kernel, groups=groups)
        self.reach = kernel - 1
        self.left = self.reach if causal else self.reach // 2

    def forward(self, x_BWF: Tensor, before: Tensor | None = None) -> Tensor:
        """before: the last `reach` frames before x, of a causal stream; None: silence, as at the start."""
        if before is not None:
            return super().forward(torch.cat((before, x_BWF), 2))
        return super().forward(F.pad(x_BWF, (self.left, self.reach - self.left)))


class Block(nn.Module):
    """A ConvNeXt block."""

    def __init__(self, config: IstftHead) -> None:
        super().__init__()
        width, inner = config.width, config.inner * config.width
        self.depthwise = FrameConvolution(width, width, config.kernel, width, config.causal)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.wide, self.narrow = nn.Linear(width, inner), nn.Linear(inner, width)
        self.scale = nn.Parameter(torch.full((width,), 1 / config.layers))

    def forward(self, x_BWF: Tensor, before: Tensor | None = None) -> Tensor:
        """The frames, changed; shape kept."""
        h_BFW = self.norm(self.depthwise(x_BWF, before).transpose(1, 2))
        h_BFW = self.scale * self.narrow(F.gelu(self.wide(h_BFW)))
        return x_BWF + h_BFW.transpose(1, 2)


class Body(nn.Module):
    """A convolution, ConvNeXt blocks and a norm: features [B, F, W] of a mel [B, mels, F]."""

    def __init__(self, config: IstftHead, mels: int) -> None:
        super().__init__()
        self.first = FrameConvolution(mels, config.width, config.kernel, 1, config.causal)
        self.first_norm = nn.LayerNorm(config.width, eps=1e-6)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.last_norm = nn.LayerNorm(config.width, eps=1e-6)

    def forward(self, mel: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """memory: of a causal stream, read and replaced."""
        x_BWF = remembered(self.first, mel, memory, 0)
        x_BWF = self.first_norm(x_BWF.transpose(1, 2)).transpose(1, 2)
        for place, block in enumerate(self.blocks, 1):
            x_BWF = remembered(block, x_BWF, memory, place)
        return self.last_norm(x_BWF.transpose(1, 2))

    def reach(self) -> int:
        """The frames on each side that a frame sees, of a body that is not causal."""
        return (len(self.blocks) + 1) * self.first.left

    def memory(self, rows: int) -> list[Tensor]:
        """What a causal body keeps before the first frame: silence for each layer."""
        weight, width = self.first.weight, self.first.out_channels
        widths = [self.first.in_channels] + [width] * len(self.blocks)
        return [weight.new_zeros(rows, each, self.first.reach) for each in widths]


class IstftVocoder(nn.Module):
    """wave [B, F hop] of mel [B, mels, F]."""

    def __init__(self, config: IstftHead, mel: Mel) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        self.body = Body(config, mel.mels)
        self.head = nn.Linear(config.width, mel.n_fft + 2)
        self.apply(begin_small)

    def forward(self, mel: Tensor) -> Tensor:
        spectrum, settings = self.spectrum(mel), self.mel
        samples = settings.samples(mel.shape[2])
        return istft(spectrum, settings.n_fft, settings.hop, settings.window, settings.padding, samples)

    def spectrum(self, mel: Tensor, memory: list[Tensor] | None = None) -> Tensor:
        """Complex spectrum [B, n_fft / 2 + 1, F]. memory: of a causal stream, read and replaced."""
        return as_spectrum(self.head(self.body(mel, memory)).float().transpose(1, 2))

    def draw(self, mel: Tensor, seeds: Tensor, first: int = 0) -> Tensor:
        """The wave; nothing is random."""
        return self(mel)

    def stream(self, seeds: Tensor) -> Stream:
        """Causal: layers keep their last frames. Otherwise pieces are drawn with the context that a frame sees."""
        if self.config.causal:
            return CausalStream(self, len(seeds))
        overlap = -(-self.mel.n_fft // self.mel.hop)
        reach = self.body.reach() + overlap
        return Windowed(self, seeds, reach, reach)


def as_spectrum(output_BCF: Tensor) -> Tensor:
    """Complex spectrum [B, n_fft / 2 + 1, F] of log-magnitudes and phases, one after another [B, n_fft + 2, F]."""
    log_magnitude, phase = output_BCF.chunk(2, 1)
    magnitude = log_magnitude.exp().clamp(max=LOUDEST)
    return torch.complex(magnitude * phase.cos(), magnitude * phase.sin())


def begin_small(part: nn.Module) -> None:
    """Initial weights: normal of deviation 0.02, cut at two; biases 0."""
    if isinstance(part, (nn.Conv1d, nn.Linear)):
        with torch.no_grad():
            part.weight.normal_(std=0.02).clamp_(-0.04, 0.04)
        if part.bias is not None:
            nn.init.zeros_(part.bias)


def remembered(layer: nn.Module, x_BWF: Tensor, memory: list[Tensor] | None, place: int) -> Tensor:
    """The layer's output; in a stream it also sees the frames in memory, which keeps the last ones seen."""
    if memory is None:
        return layer(x_BWF)
    before = memory[place]
    memory[place] = torch.cat((before, x_BWF), 2)[:, :, x_BWF.shape[2] :]
    return layer(x_BWF, before)


class CausalStream:
    """Each frame is computed once; the last frames of every layer are kept."""

    def __init__(self, model: IstftVocoder, rows: int) -> None:
        self.model, self.memory = model, model.body.memory(rows)
        self.overlap = SpectrumStream(model.mel, model.head.weight.new_zeros(rows, 0))

    def push(self, mel: Tensor, last: bool = False) -> Tensor:
        """See `Stream`."""
        spectrum = self.model.spectrum(mel, self.memory) if mel.shape[2] else mel.new_zeros(len(mel), 0, 0)
        return self.overlap.push(spectrum, last)


class SpectrumStream:
    """The inverse STFT of a growing spectrum. Kept: the samples that later frames still add to."""

    def __init__(self, mel: Mel, nothing: Tensor) -> None:
        self.mel = mel
        self.total = nothing  # [B, 0]; samples that later frames still add to
        self.weight = nothing.new_zeros(0)  # the squared windows that they lie under
        self.skip = mel.padding  # samples before the first of the wave
        self.left = 0  # samples that the frames so far stand for, not yet given out

    def push(self, spectrum_BCF: Tensor, last: bool = False) -> Tensor:
        """The samples [B, n] that are final now. last: no frame follows."""
        settings, count = self.mel, spectrum_BCF.shape[2]
        self.left += settings.samples(count)
        if count:
            frames = windowed_frames(spectrum_BCF, settings.n_fft, settings.window)
            squares = envelope(count, settings.n_fft, settings.hop, settings.window, frames.device)
            self.total = added(self.total, overlap_add(frames, settings.hop))
            self.weight = added(self.weight, squares)
        ready = self.total.shape[1] if last else count * settings.hop
        wave = (self.total / self.weight.clamp(min=1e-8))[:, :ready]
        self.total, self.weight = self.total[:, ready:], self.weight[ready:]
        cut = wave[:, self.skip :][:, : self.left]
        self.skip = max(0, self.skip - wave.shape[1])
        self.left -= cut.shape[1]
        return F.pad(cut, (0, self.left)) if last else cut


def added(tail: Tensor, more: Tensor) -> Tensor:
    """The sum of two signals that begin together, of the longer's length."""
    difference = more.shape[-1] - tail.shape[-1]
    longer = F.pad(tail, (0, max(0, difference)))
    return longer + F.pad(more, (0, max(0, -difference)))
