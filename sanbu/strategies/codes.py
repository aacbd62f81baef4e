"""Codes step by step, then sound: p(codes) = prod_t prod_k p(code_k at step t | earlier steps), with a KV cache.

The codes come in the delay pattern (`sanbu.layers.delays`), and the sound codec parents.codec makes sound of them. The
first codebook ends the sound by saying empty. A prompt is a sound: its codes are kept and continued.
Shapes: B rows, K codebooks, T steps, V codes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from sanbu.config import SanbuError
from sanbu.layers.delays import delayed, undelayed
from sanbu.layers.spectrogram import Mel
from sanbu.models.codes.code_transformer import codec_of
from sanbu.noise import uniform_at
from sanbu.space import Batch, Draft, Models, Space
from sanbu.strategies.filters import Sampling, draw, filters
from sanbu.strategies.strategy import Strategy, StrategyConfig


class Codes(Sampling, StrategyConfig):
    """The codes of a sound step by step, and the sound of them."""

    kind: Literal["codes"] = "codes"
    families: ClassVar[tuple[str, ...]] = ("codes",)
    seconds: float = Field(4.0, gt=0, description="longest sound, the prompt included")
    chunk: int = Field(0, ge=0, description="frames of codes per piece of sound, for streams; 0: all at once")

    def unfiltered(self) -> Codes:
        """Temperature 1 and no filters."""
        return self.model_copy(update=dict(Sampling()))

    def build(self, space: Space) -> Strategy:
        return CodesStrategy(self, space.mel)


@dataclass
class CodesState:
    """sequence [B, K, T] of which `step` steps are drawn, logprobs [B, K, T] of them.

    given [B]: frames of the prompt. frames [B]: of the whole row; `limit` until its end is drawn. waves: the sound of
    each row so far. read: frames of each row that its decoder was given.
    """

    mel: Tensor
    given_mel: Tensor
    seeds: Tensor
    done: Tensor
    sequence: Tensor
    logprobs: Tensor
    given: Tensor
    frames: Tensor
    waves: list[Tensor]
    read: list[int]
    step: int = 0
    limit: int = 0
    hop: int = 0  # samples per frame of codes
    cache: Any = None
    decoders: list[Any] = field(default_factory=list)


class CodesStrategy:
    """A step draws one code per codebook and row."""

    def __init__(self, config: Codes, mel: Mel) -> None:
        self.config, self.mel = config, mel
        self.filters = filters(config)

    def begin(self, condition: Batch, seeds: Tensor) -> CodesState:
        """From mel [B, M, F] and frames [B] of the prompts; no frames: from nothing."""
        mel, none = condition["mel"], torch.zeros_like(seeds)
        frames = condition.get("frames", torch.full_like(seeds, mel.shape[2]))
        nothing = torch.zeros(len(seeds), 0, 0, device=seeds.device)
        waves = [mel.new_zeros(0) for _ in range(len(seeds))]
        read = [0] * len(seeds)
        return CodesState(mel, frames, seeds, none.bool(), nothing.long(), nothing, none, none, waves, read)

    def advance(self, models: Models, state: CodesState) -> CodesState:
        """Draw the codes of the next step, and the sound where a piece is complete."""
        codec, model = codec_of(models), models["model"]
        if state.cache is None:
            self.prepare(model, codec, state)
        self.draw_step(model, state)
        self.sound(codec, state)
        return state

    def prepare(self, model: Any, codec: Any, state: CodesState) -> None:
        """The codes of the prompts, the sequence and the cache. Raises SanbuError where a prompt leaves no room."""
        rows, codebooks, device = len(state.seeds), model.codebooks, state.seeds.device
        state.hop = codec.stride * self.mel.hop
        state.limit = max(1, int(self.config.seconds * self.mel.rate / state.hop))
        state.given = -(-state.given_mel // codec.stride)
        longest = int(state.given.max())
        if longest >= state.limit:
            said = longest * state.hop / self.mel.rate
            given = f"strategy.seconds: given {self.config.seconds:g}"
            raise SanbuError(f"{given}, but the prompt is of {said:.1f} seconds")
        slots = state.limit + codebooks
        if slots > model.context:
            most = (model.context - codebooks) * state.hop / self.mel.rate
            given = f"strategy.seconds: given {self.config.seconds:g}"
            raise SanbuError(f"{given}, allowed: at most {most:.1f}, the context")
        codes = codec.encode(state.mel) if longest else torch.zeros(rows, codebooks, 0, dtype=torch.long, device=device)
        held = delayed(codes, state.given, model.empty)
        state.sequence = torch.full((rows, codebooks, slots), model.empty, device=device)
        state.sequence[:, :, : held.shape[2]] = held
        state.logprobs = torch.zeros(state.sequence.shape, device=device)
        state.frames = torch.full_like(state.given, state.limit)
        state.cache = model.cache(rows, slots)
        if self.config.chunk:
            state.decoders = [codec.decoding(seed) for seed in state.seeds.split(1)]

    def draw_step(self, model: Any, state: CodesState) -> None:
        """The codes of one step; those of the prompt are kept, and a row that has ended gets empty ones."""
        step, rows = state.step, len(state.seeds)
        before = model.shifted(state.sequence[:, :, : step + 1])[:, :, -1:]
        positions = torch.full((rows, 1), step, device=state.seeds.device)
        cache = [layer.first(step + 1) for layer in state.cache]
        logits_BKV = model(before, positions, cache)[:, :, 0].float()
        frame_K = step - torch.arange(model.codebooks, device=state.seeds.device)
        drawn_BK = self.choose(model, logits_BKV, state)
        held_BK = state.sequence[:, :, step]
        given = (frame_K >= 0) & (frame_K < state.given[:, None])
        drawn_BK = torch.where(given, held_BK, drawn_BK)
        ends_B = (drawn_BK[:, 0] == model.empty) & (step < state.frames)
        state.frames = torch.where(ends_B, step, state.frames)
        inside = (frame_K >= 0) & (frame_K < state.frames[:, None])
        state.sequence[:, :, step] = torch.where(inside, drawn_BK, model.empty)
        kept_BK1 = state.sequence[:, :, step, None]
        state.logprobs[:, :, step] = logits_BKV.log_softmax(-1).gather(2, kept_BK1)[..., 0]
        state.step += 1

    def choose(self, model: Any, logits_BKV: Tensor, state: CodesState) -> Tensor:
        """A code per row and codebook; only the first codebook may be empty, and not at the first step."""
        allowed = logits_BKV.clone()
        allowed[:, 1:, model.empty] = -torch.inf
        if state.step == 0:
            allowed[:, 0, model.empty] = -torch.inf
        chosen = []
        for codebook in range(model.codebooks):
            logits_BV = allowed[:, codebook]
            for apply in self.filters:
                logits_BV = apply(logits_BV, None)
            if self.config.temperature == 0:
                chosen.append(logits_BV.argmax(-1))
                continue
            counter = torch.tensor(state.step * model.codebooks + codebook, device=state.seeds.device)
            chosen.append(draw(logits_BV, uniform_at(state.seeds, counter)))
        return torch.stack(chosen, 1)

    def sound(self, codec: Any, state: CodesState) -> None:
        """The sound of the frames whose codes are all known."""
        codebooks = state.sequence.shape[1]
        known = state.step - codebooks + 1  # frames with all their codes
        if known < 1:
            return
        codes_BKF = undelayed(F.pad(state.sequence[:, :, : state.step], (0, 1)))
        for row, frames in enumerate(state.frames.tolist()):
            last = known >= frames
            if bool(state.done[row]):
                continue
            mine = codes_BKF[row : row + 1, :, : min(known, frames)]
            if state.decoders and (last or mine.shape[2] - state.read[row] >= self.config.chunk):
                fresh = mine[:, :, state.read[row] :]
                piece = state.decoders[row].push(fresh, last)[0]
                state.waves[row] = torch.cat((state.waves[row], piece))
                state.read[row] = mine.shape[2]
            elif last:
                state.waves[row] = codec.decode(mine, state.seeds[row : row + 1])[0]
            state.done[row] = last

    def draft(self, state: CodesState) -> Draft:
        """The waves so far. In the record: `frames` of the mel that are known, `codes` [B, K, F] in their order, which
        are empty beyond `code_frames`, and `logprobs` [B, K, T] in the delay pattern."""
        lengths = torch.tensor(list(map(len, state.waves)), device=state.seeds.device)
        sample = pad_sequence(state.waves, batch_first=True)
        known = torch.arange(sample.shape[1], device=lengths.device) < lengths[:, None]
        record = {"frames": lengths // self.mel.hop, "codes": undelayed(state.sequence), "code_frames": state.frames}
        record["logprobs"] = state.logprobs
        calls = torch.full_like(lengths, state.step)
        return Draft(sample, known, state.done, calls, record=record)
