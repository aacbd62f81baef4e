"""Recurrent networks over tokens: RNN (Elman, 1990), GRU (Cho and others, 2014), LSTM (Hochreiter and others, 1997).

RNN   h <- tanh(W x + U h + b)
GRU   r, z = sigmoid(W x + U h + b);  n = tanh(W x + b + r (U h + b));  h <- (1 - z) n + z h
LSTM  i, f, o = sigmoid(W x + U h + b);  g = tanh(W x + U h + b);  c <- f c + i g;  h <- o tanh(c)

Layers of torch, each with its norm and residual connection. B batch, T time, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from sanbu.layers.state import State, starts_within
from sanbu.models.model import ModelConfig
from sanbu.models.tokens.modern import CappedHead, FirstNorm, Norm, rms_norm
from sanbu.models.tokens.transformer import Readout, logits
from sanbu.space import Space

ENDLESS = 2**31 - 1  # the longest sequence of a model whose state has a fixed size


class StatefulConfig(ModelConfig):
    """What the models share that keep a state of fixed size."""

    family: ClassVar[str] = "tokens"
    layers: int = Field(2, ge=1)
    width: int = Field(256, ge=1, description="width; sets automatic learning rate and batch size")
    cap: float = Field(15.0, gt=0, description="bound of the logits, from tanh soft-capping")

    @classmethod
    def adopt(cls, replaced: Any) -> dict[str, Any]:
        """As many layers and as wide as the model whose place it takes: about the same number of parameters."""
        found = replaced if isinstance(replaced, dict) else {}
        return {name: found[name] for name in ("layers", "width") if isinstance(found.get(name), int)}


class Stateful(nn.Module):
    """tokens -> embedding -> layers -> norm -> head; each layer keeps a state of fixed size.

    A layer is called with x_BTD, starts_BT (where documents start within a row, or None) and its state, or None.
    """

    context = ENDLESS

    def __init__(self, space: Space, config: StatefulConfig, layers: list[nn.Module]) -> None:
        super().__init__()
        self.embedding = FirstNorm(space.vocabulary, config.width)
        self.blocks: Any = nn.ModuleList(layers)
        self.norm = Norm()
        self.head = CappedHead(config.width, space.vocabulary, config.cap)
        nn.init.zeros_(self.head.weight)

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[State] | None = None,
        readout: Readout = logits,
    ) -> Tensor:
        """logits_BTV for tokens_BT, or whatever `readout(head, hidden_BTD)` makes.

        positions_BT: position of each token in its document; 0 starts a new document, whose state is empty. cache: the
        states after earlier tokens; each row then holds one document.
        """
        starts_BT = starts_within(positions_BT) if cache is None else None
        x_BTD = self.embedding(tokens_BT, positions_BT)
        for index, block in enumerate(self.blocks):
            x_BTD = block(x_BTD, starts_BT, None if cache is None else cache[index])
        return readout(self.head, self.norm(x_BTD))

    def cache(self, rows: int, slots: int) -> list[State]:
        """Empty states for `rows` rows; `slots` has no meaning for them."""
        return [block.state(rows) for block in self.blocks]


class Recurrence(nn.Module):
    """x + W cell(norm(x)), with one recurrent layer of torch."""

    def __init__(self, cell: nn.RNNBase, width: int) -> None:
        super().__init__()
        self.cell = cell
        self.out = nn.Linear(cell.hidden_size, width, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, x_BTD: Tensor, starts_BT: Tensor | None, state: State | None) -> Tensor:
        inputs = rms_norm(x_BTD)
        if state is not None:
            return x_BTD + self.out(read(self.cell, inputs, state))
        hidden = self.cell(inputs)[0] if starts_BT is None else read_documents(self.cell, inputs, starts_BT)
        return x_BTD + self.out(hidden)

    def state(self, rows: int) -> State:
        """The empty state: h, and c of an LSTM."""
        zeros = next(self.cell.parameters()).new_zeros(rows, self.cell.hidden_size)
        return State((zeros, zeros) if isinstance(self.cell, nn.LSTM) else (zeros,))


def read(cell: nn.RNNBase, x_BTD: Tensor, state: State) -> Tensor:
    """h_BTD from a state, which is moved on by the tokens that each row reads."""
    if x_BTD.shape[1] == 1 and state.reads is None:
        return one_step(cell, x_BTD[:, 0], state)[:, None]
    before = tuple(tensor[None] for tensor in state.tensors)
    given = before if isinstance(cell, nn.LSTM) else before[0]
    if state.reads is None:
        hidden, after = cell(x_BTD, given)
        state.tensors = tuple(tensor[0] for tensor in after) if isinstance(after, tuple) else (after[0],)
        return hidden
    lengths = state.reads.clamp(min=1).cpu()
    packed, after = cell(pack_padded_sequence(x_BTD, lengths, batch_first=True, enforce_sorted=False), given)
    new = after if isinstance(after, tuple) else (after,)
    some = (state.reads > 0)[:, None]
    pairs = zip(state.tensors, new, strict=True)
    state.tensors = tuple(torch.where(some, later[0], earlier) for earlier, later in pairs)
    return pad_packed_sequence(packed, batch_first=True, total_length=x_BTD.shape[1])[0]


def one_step(cell: Any, x_BD: Tensor, state: State) -> Tensor:
    """h_BD after one more token: a fifth of the time of a call of the layer, which is made for long rows."""
    weights = (cell.weight_ih_l0, cell.weight_hh_l0, cell.bias_ih_l0, cell.bias_hh_l0)
    if isinstance(cell, nn.LSTM):
        state.tensors = torch.lstm_cell(x_BD, state.tensors, *weights)
    else:
        function = torch.gru_cell if isinstance(cell, nn.GRU) else torch.rnn_tanh_cell
        state.tensors = (function(x_BD, state.tensors[0], *weights),)
    return state.tensors[0]


def read_documents(cell: nn.RNNBase, x_BTD: Tensor, starts_BT: Tensor) -> Tensor:
    """h_BTD where documents start within rows: every piece of a row is read alone, from the empty state.

    Pieces of similar length are padded to one batch, which is ten times as fast as a packed sequence.
    """
    rows, time = starts_BT.shape
    first = torch.arange(time, device=starts_BT.device) == 0
    place_P = (starts_BT | first).flatten().nonzero()[:, 0]
    length_P = place_P.diff(append=place_P.new_tensor([rows * time]))
    flat_MD = x_BTD.flatten(0, 1)
    places, found = [], []
    for pieces in groups(length_P):
        step = torch.arange(int(length_P[pieces].max()), device=place_P.device)
        filled = step < length_P[pieces, None]
        place = place_P[pieces, None] + step
        hidden = cell(flat_MD[place.clamp(max=len(flat_MD) - 1)])[0]
        places.append(place[filled])
        found.append(hidden[filled])
    order = torch.cat(places).argsort()
    return torch.cat(found)[order].view(rows, time, -1)


def groups(length_P: Tensor) -> list[Tensor]:
    """The pieces whose lengths lie between two powers of two, by number, for each of these ranges."""
    size_P = (length_P - 1).clamp(min=1).log2().floor()
    return [(size_P == size).nonzero()[:, 0] for size in size_P.unique()]


def stack(config: StatefulConfig, space: Space, cell: Callable[..., nn.RNNBase]) -> Stateful:
    """A stack of such layers. Input matrices start uniform with deviation 1/sqrt(width), recurrent ones orthogonal."""
    made = [cell(config.width, config.width, batch_first=True) for _ in range(config.layers)]
    bound = (3 / config.width) ** 0.5
    for layer in made:
        for name, parameter in layer.named_parameters():
            if "weight_ih" in name:
                nn.init.uniform_(parameter, -bound, bound)
            elif "weight_hh" in name:
                for gate in parameter.data.split(config.width):
                    nn.init.orthogonal_(gate)
            else:
                nn.init.zeros_(parameter)
        if isinstance(layer, nn.LSTM):
            bias: Any = layer.bias_ih_l0
            bias.data[config.width : 2 * config.width] = 1.0  # forget little at first (Gers and others, 2000)
    return Stateful(space, config, [Recurrence(layer, config.width) for layer in made])


class RNN(StatefulConfig):
    """A plain recurrent network: h <- tanh(W x + U h + b)."""

    kind: Literal["rnn"] = "rnn"

    def build(self, space: Space) -> nn.Module:
        return stack(self, space, nn.RNN)


class GRU(StatefulConfig):
    """Gated recurrent units (Cho and others, 2014)."""

    kind: Literal["gru"] = "gru"

    def build(self, space: Space) -> nn.Module:
        return stack(self, space, nn.GRU)


class LSTM(StatefulConfig):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997)."""

    kind: Literal["lstm"] = "lstm"

    def build(self, space: Space) -> nn.Module:
        return stack(self, space, nn.LSTM)
