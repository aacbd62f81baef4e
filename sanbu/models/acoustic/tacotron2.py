"""Tacotron 2: frames one after another, each read from the symbols by location-sensitive attention.

q_t = LSTM(prenet(y_{t-1}), c_{t-1});   e_ts = v tanh(W q_t + V h_s + U conv(a_{t-1}, a_1 + ... + a_{t-1})_s)
a_t = softmax(e_t);   c_t = sum_s a_ts h_s;   y_t, stop_t = W LSTM(q_t, c_t), c_t;   mel = y + postnet(y)

(Shen and others, "Natural TTS synthesis by conditioning WaveNet on mel spectrogram predictions", 2018.) `reduction`
frames are drawn per step (Wang and others, "Tacotron", 2017). Norms are over channels, where the paper normalises over
the batch, so that rows do not meet. The encoder's LSTM has a residual connection and a layer norm, which the paper has
not: attention is learned in fewer steps. The prenet drops half of its units while drawing too, by the seed of the row.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence

from sanbu.config import SanbuError
from sanbu.layers.alignment import search_durations
from sanbu.models.acoustic.acoustic import CENTRE, FRAMES, SPREAD, SYMBOLS, AcousticConfig, Control, Spoken
from sanbu.noise import uniform_at
from sanbu.space import Batch, Space

DROPPED = 0.5  # of the prenet's units
STOP = 0.5  # probability of the gate that ends a row
LONGEST_SYMBOL = 40  # frames per symbol, on average, after which a row is stopped
LEAST = 1e-6  # weight, of which a logarithm is taken
LINGER = 12  # frames that the attention may stay at the last symbol
VOICE = 0.1  # standard deviation of the vectors of voices at the start, beside hidden states of 1


class Taught(NamedTuple):
    """Of teacher forcing: mel before and after the postnet [B, mels, T]; of each step, K = T / r, the logit of the gate
    [B, K] and the weights of the symbols [B, K, S].
    """

    before: Tensor
    mel: Tensor
    gate: Tensor
    alignment: Tensor


class Tacotron2(AcousticConfig):
    """Symbols to mel, frame by frame, with attention."""

    family: ClassVar[str] = "attention"
    kind: Literal["tacotron2"] = "tacotron2"
    width: int = Field(512, ge=2, description="channels of the encoder; even")
    recurrent: int = Field(1024, ge=1, description="width of the two LSTMs of the decoder")
    prenet: int = Field(256, ge=1, description="width of the prenet")
    attention: int = Field(128, ge=1, description="width of the attention")
    postnet: int = Field(512, ge=1, description="channels of the postnet")
    reduction: int = Field(1, ge=1, description="frames per step of the decoder")
    dropout: float = Field(0.1, ge=0, lt=1, description="of hidden states")

    def check(self, space: Space) -> None:
        super().check(space)
        if self.width % 2:
            raise ValueError(f"model.width: given {self.width}, allowed: even numbers")

    def build(self, space: Space) -> nn.Module:
        return Tacotron2Model(self, space)

    def example(self, space: Space) -> tuple[Tensor, ...] | None:
        with torch.device("meta"):
            ids = torch.ones(1, SYMBOLS, dtype=torch.long)
            mel = torch.zeros(1, space.mel.mels, FRAMES)
            return ids, torch.zeros(1, dtype=torch.long), mel, torch.full((1,), FRAMES)


class Convolutions(nn.Module):
    """Convolutions with norms over channels. [B, C, T] -> [B, C', T]; zero beyond a row."""

    def __init__(self, channels: list[int], kernel: int, dropout: float, activation: str) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv1d(a, b, kernel, padding=kernel // 2) for a, b in pairwise(channels))
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in channels[1:-1])
        self.last_norm = nn.LayerNorm(channels[-1]) if activation == "relu" else None
        self.activation, self.dropout = activation, nn.Dropout(dropout)

    def forward(self, x_BCT: Tensor, inside_BT: Tensor) -> Tensor:
        norms = [*self.norms, self.last_norm]
        for layer, norm in zip(self.layers, norms, strict=True):
            x_BCT = layer(x_BCT * inside_BT[:, None])
            if norm is not None:
                x_BTC = norm(x_BCT.transpose(1, 2))
                x_BTC = F.relu(x_BTC) if self.activation == "relu" else x_BTC.tanh()
                x_BCT = self.dropout(x_BTC).transpose(1, 2)
        return x_BCT * inside_BT[:, None]


FILTERS, REACH = 32, 15  # of the convolution over earlier weights: its channels, and the symbols on each side


class Sheet(NamedTuple):
    """What the attention reads in every step: hidden states [B, S, D], their keys [B, S, A], a mask [B, S], and the map
    of earlier weights [62, A].
    """

    hidden: Tensor
    keys: Tensor
    inside: Tensor
    places: Tensor


class Attention(nn.Module):
    """Location-sensitive attention (Chorowski and others, 2015)."""

    def __init__(self, query: int, memory: int, width: int) -> None:
        super().__init__()
        self.query, self.memory = nn.Linear(query, width, bias=False), nn.Linear(memory, width, bias=False)
        self.places = nn.Conv1d(2, FILTERS, 2 * REACH + 1, bias=False)
        self.place, self.score = nn.Linear(FILTERS, width, bias=False), nn.Linear(width, 1)

    def sheet(self, h_BSD: Tensor, inside_BS: Tensor) -> Sheet:
        """What all steps share; the convolution and the linear map after it are one matrix."""
        places = (self.place.weight @ self.places.weight.flatten(1)).T
        return Sheet(h_BSD, self.memory(h_BSD), inside_BS, places)

    def forward(self, q_BQ: Tensor, seen_B2S: Tensor, sheet: Sheet) -> Tensor:
        """Weights [B, S]. seen: the last weights, and the sum of all."""
        windows_B2SX = F.pad(seen_B2S, (REACH, REACH)).unfold(2, 2 * REACH + 1, 1)
        windows_BSX = windows_B2SX.transpose(1, 2).flatten(2)
        read_BSA = sheet.keys + windows_BSX @ sheet.places + self.query(q_BQ)[:, None]
        scores_BS = self.score(read_BSA.tanh())[..., 0]
        return scores_BS.masked_fill(~sheet.inside, -torch.inf).softmax(1)


class Walk(NamedTuple):
    """The state of the decoder between steps."""

    first: tuple[Tensor, Tensor]  # hidden and cell [B, R] of the attention's LSTM
    context: Tensor  # [B, D]
    seen: Tensor  # [B, 2, S]


class Tacotron2Model(nn.Module):
    """mel [B, mels, T] of ids [B, S]."""

    def __init__(self, config: Tacotron2, space: Space) -> None:
        super().__init__()
        self.config, self.mel = config, space.mel
        width, mels = config.width, space.mel.mels
        self.symbols = nn.Embedding(space.vocabulary, width)
        self.voices = nn.Embedding(max(1, space.classes), width)
        nn.init.normal_(self.voices.weight, std=VOICE)
        self.convolutions = Convolutions([width] * 4, 5, config.dropout, "relu")
        self.forwards, self.backwards = (nn.LSTM(width, width // 2, batch_first=True) for _ in range(2))
        self.norm = nn.LayerNorm(width)
        self.prenet = nn.ModuleList(nn.Linear(w, config.prenet) for w in (mels, config.prenet))
        self.first = nn.LSTMCell(config.prenet + width, config.recurrent)
        self.attention = Attention(config.recurrent, width, config.attention)
        self.second = nn.LSTM(config.recurrent + width, config.recurrent, batch_first=True)
        self.out = nn.Linear(config.recurrent + width, mels * config.reduction)
        self.gate = nn.Linear(config.recurrent + width, 1)
        self.postnet = Convolutions([mels, *[config.postnet] * 4, mels], 5, config.dropout, "tanh")
        self.dropout = nn.Dropout(config.dropout)

    def hear(self, ids_BS: Tensor, voice_B: Tensor) -> Tensor:
        """Hidden states of the symbols [B, S, D], zero beyond a row."""
        inside_BS = ids_BS > 0
        x_BSD = self.convolutions(self.symbols(ids_BS).transpose(1, 2), inside_BS).transpose(1, 2)
        back_BSD = reversed_rows(self.backwards(reversed_rows(x_BSD, inside_BS))[0], inside_BS)
        h_BSD = self.norm(x_BSD + torch.cat((self.forwards(x_BSD)[0], back_BSD), 2))
        return (h_BSD + self.voices(voice_B)[:, None]) * inside_BS[..., None]

    def start(self, h_BSD: Tensor) -> Walk:
        """The decoder before its first step."""
        B, S, D = h_BSD.shape
        zero = h_BSD.new_zeros(B, self.config.recurrent)
        return Walk((zero, zero), h_BSD.new_zeros(B, D), h_BSD.new_zeros(B, 2, S))

    def step(self, walk: Walk, given_BP: Tensor, sheet: Sheet) -> Walk:
        """Read the symbols once more. given: the prenet's output for the last frame."""
        first = self.first(torch.cat((given_BP, walk.context), 1), walk.first)
        weights_BS = self.attention(first[0], walk.seen, sheet)
        context = (weights_BS[:, None] @ sheet.hidden)[:, 0]
        return Walk(first, context, torch.stack((weights_BS, walk.seen[:, 1] + weights_BS), 1))

    def forward(self, ids_BS: Tensor, voice_B: Tensor, mel_BMT: Tensor, frames_B: Tensor) -> Taught:
        """Teacher forcing: each step is given the last true frame of the step before."""
        r, T = self.config.reduction, mel_BMT.shape[2]
        h_BSD = self.hear(ids_BS, voice_B)
        sheet = self.attention.sheet(h_BSD, ids_BS > 0)
        scaled = (F.pad(mel_BMT, (0, -T % r), value=CENTRE) - CENTRE) / SPREAD
        last_BMK = scaled[:, :, r - 1 :: r]
        before_BKM = F.pad(last_BMK, (1, -1)).transpose(1, 2)
        given_BKP = before_BKM
        for layer in self.prenet:
            given_BKP = F.dropout(F.relu(layer(given_BKP)), DROPPED)
        walk, walks = self.start(h_BSD), []
        for given_BP in given_BKP.unbind(1):
            walk = self.step(walk, given_BP, sheet)
            walks.append(walk)
        queries = torch.stack([each.first[0] for each in walks], 1)
        contexts = torch.stack([each.context for each in walks], 1)
        hidden, _ = self.second(torch.cat((self.dropout(queries), contexts), 2))
        read_BKX = torch.cat((self.dropout(hidden), contexts), 2)
        y_BMT = self.frames_of(self.out(read_BKX))[:, :, :T]
        real_BT = torch.arange(T, device=mel_BMT.device) < frames_B[:, None]
        after = y_BMT + self.postnet(y_BMT, real_BT)
        alignment = torch.stack([each.seen[:, 0] for each in walks], 1)
        gate = self.gate(read_BKX)[..., 0]
        return Taught(y_BMT * SPREAD + CENTRE, after * SPREAD + CENTRE, gate, alignment)

    def copy(self, batch: Batch) -> Tensor:
        """The mel [B, mels, T] after the postnet, given the true frames."""
        return self(batch["ids"], batch["voice"], batch["mel"], batch["frames"]).mel

    def align(self, ids_BS: Tensor, voice_B: Tensor, mel_BMT: Tensor, frames_B: Tensor) -> Tensor:
        """Durations [B, S] of the best monotonic path through the logarithms of the weights of teacher forcing."""
        weights_BKS = self(ids_BS, voice_B, mel_BMT, frames_B).alignment
        weights_BTS = weights_BKS.repeat_interleave(self.config.reduction, 1)[:, : mel_BMT.shape[2]]
        scores_BST = weights_BTS.clamp(min=LEAST).log().transpose(1, 2)
        return search_durations(scores_BST, (ids_BS > 0).sum(1), frames_B)

    def frames_of(self, out_BKX: Tensor) -> Tensor:
        """[B, K, r mels] -> [B, mels, K r]."""
        return out_BKX.unflatten(2, (self.config.reduction, -1)).flatten(1, 2).transpose(1, 2)

    def say(self, ids_BS: Tensor, voice_B: Tensor, control: Control, seeds_B: Tensor) -> Spoken:
        """Speak until the gate opens, the attention lingers at the last symbol, or a row has 40 frames per symbol.

        A row that ends by neither of the first two is not `finished`. Rate and energy act on the finished mel: its
        frames are interpolated, and its level is raised. Raises SanbuError for another pitch, which nothing here sets.
        """
        if control.pitch != 1:
            raise SanbuError(f"pitch: given {control.pitch:g}, but tacotron2 does not control it; allowed: 1")
        r = self.config.reduction
        h_BSD, symbols_B = self.hear(ids_BS, voice_B), (ids_BS > 0).sum(1)
        sheet = self.attention.sheet(h_BSD, ids_BS > 0)
        most_B = -(-LONGEST_SYMBOL * symbols_B // r)
        walk, memory = self.start(h_BSD), None
        frame_BM = h_BSD.new_zeros(len(ids_BS), self.mel.mels)
        steps_B, stay_B = torch.zeros_like(symbols_B), torch.zeros_like(symbols_B)
        finished_B, done_B = symbols_B == 0, symbols_B == 0
        drawn: list[Tensor] = []
        weights: list[Tensor] = []
        while not bool(done_B.all()):
            given_BP = self.prenet_by_seed(frame_BM, seeds_B, len(drawn))
            walk = self.step(walk, given_BP, sheet)
            both_BX = torch.cat((walk.first[0], walk.context), 1)
            hidden, memory = self.second(both_BX[:, None], memory)
            read_BX = torch.cat((hidden[:, 0], walk.context), 1)
            y_BMr = self.frames_of(self.out(read_BX)[:, None])
            drawn.append(y_BMr)
            weights.append(walk.seen[:, 0])
            frame_BM = y_BMr[:, :, -1]
            steps_B += (~done_B).long()
            at_last_B = walk.seen[:, 0].argmax(1) == symbols_B - 1
            stay_B += at_last_B.long() * r
            ended_B = (self.gate(read_BX)[:, 0].sigmoid() > STOP) | (stay_B > LINGER)
            finished_B |= ended_B & ~done_B
            done_B = done_B | ended_B | (steps_B >= most_B)
        return self.spoken(drawn, weights, steps_B, finished_B, control)

    def spoken(
        self, drawn: list[Tensor], weights: list[Tensor], steps_B: Tensor, finished_B: Tensor, control: Control
    ) -> Spoken:
        """The mel after the postnet, with the frames of each symbol by the largest weight."""
        r = self.config.reduction
        frames_B = steps_B * r
        y_BMT = torch.cat(drawn, 2)
        real_BT = torch.arange(y_BMT.shape[2], device=y_BMT.device) < frames_B[:, None]
        mel = (y_BMT + self.postnet(y_BMT, real_BT)) * SPREAD + CENTRE + math.log(control.energy)
        durations = counted(torch.stack(weights, 1), steps_B) * r
        if control.rate == 1:
            return Spoken(mel, frames_B, durations, finished_B)
        changed_B = (frames_B / control.rate).round().long()
        counts = zip(mel, frames_B.tolist(), changed_B.tolist(), strict=True)
        rows = [stretched(row[:, :old], new) for row, old, new in counts]
        return Spoken(pad_sequence(rows, batch_first=True).transpose(1, 2), changed_B, durations, finished_B)

    def prenet_by_seed(self, frame_BM: Tensor, seeds_B: Tensor, step: int) -> Tensor:
        """The prenet's output, half of whose units are dropped by the seed of the row."""
        x_BP = frame_BM
        for number, layer in enumerate(self.prenet):
            x_BP = F.relu(layer(x_BP))
            P = x_BP.shape[1]
            place_P = torch.arange(P, device=x_BP.device) + P * (2 * step + number)
            kept_BP = uniform_at(seeds_B[:, None], place_P) > DROPPED
            x_BP = x_BP * kept_BP / (1 - DROPPED)
        return x_BP


def reversed_rows(x_BSD: Tensor, inside_BS: Tensor) -> Tensor:
    """Each row from its last real place to its first; what lies beyond stays where it is."""
    place_S = torch.arange(x_BSD.shape[1], device=x_BSD.device)
    back_BS = inside_BS.sum(1)[:, None] - 1 - place_S
    index_BS = torch.where(inside_BS, back_BS, place_S)
    return x_BSD.gather(1, index_BS[..., None].expand_as(x_BSD))


def stretched(mel_MT: Tensor, frames: int) -> Tensor:
    """A mel with another number of frames [frames, mels], interpolated in time."""
    if not mel_MT.shape[1]:
        return mel_MT.T
    return F.interpolate(mel_MT[None], size=max(1, frames), mode="linear")[0].T


def counted(weights_BKS: Tensor, steps_B: Tensor) -> Tensor:
    """How many steps [B, S] each symbol has the largest weight in; their sum is `steps`."""
    best_BK = weights_BKS.argmax(2)
    real_BK = torch.arange(best_BK.shape[1], device=best_BK.device) < steps_B[:, None]
    found = torch.zeros(len(best_BK), weights_BKS.shape[2], dtype=torch.long, device=best_BK.device)
    return found.scatter_add(1, best_BK, real_BK.long())
