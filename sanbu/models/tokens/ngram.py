"""n-grams with modified Kneser-Ney smoothing (Kneser and Ney, 1995; Chen and Goodman, 1999): counted, not descended.

p_k(w | h) = (c(h w) - D(c(h w))) / c(h .) + g(h) p_{k-1}(w | h')        h' is h without its first token
g(h)       = (D_1 N_1(h) + D_2 N_2(h) + D_3 N_3+(h)) / c(h .)            p_0 is uniform

c counts occurrences at the highest order, and below it how many different tokens stand before (N_1+(. h w)), except
where h begins a document, which has nothing before it. D_1, D_2, D_3+ follow from how many n-grams of an order have
counts 1 to 4. B batch, T time, V vocabulary, K order, N n-grams.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.config import SanbuError
from sanbu.layers.state import State
from sanbu.models.model import ModelConfig
from sanbu.models.tokens.recurrent import ENDLESS
from sanbu.models.tokens.transformer import Readout, logits
from sanbu.space import IGNORED, Batch, Space

FALLBACK = (0.5, 1.0, 1.5)  # discounts of an order whose counts of counts give none, as kenlm has them
LARGEST_KEY = 2**63


class NGram(ModelConfig):
    """Modified Kneser-Ney n-grams."""

    kind: Literal["ngram"] = "ngram"
    family: ClassVar[str] = "tokens"
    searches: ClassVar[tuple[str, ...]] = ("closed-form",)
    order: int = Field(6, ge=1, le=62, description="tokens of the longest n-gram")

    def check(self, space: Space) -> None:
        if space.vocabulary**self.order >= LARGEST_KEY:
            most = next(k for k in range(1, 64) if space.vocabulary ** (k + 1) >= LARGEST_KEY)
            raise ValueError(
                f"model.order: given {self.order}, but {space.vocabulary:,} tokens allow at most {most}; lower it, or"
                " use fewer tokens, as in data.tokenizer=byte"
            )

    def build(self, space: Space) -> nn.Module:
        return KneserNey(self.order, space)


class Order(nn.Module):
    """The n-grams of one order: keys_N, sorted, and the discounted probability of each; histories and their g.

    An n-gram is a number in base V, its last token the last digit. The n-grams of history i are starts_i to
    starts_{i+1}. counts_N and discounts are what they follow from; empty where only the probabilities are known.
    """

    fitted = True  # buffers take the shapes of what is loaded

    def __init__(self) -> None:
        super().__init__()
        for name in ("keys", "histories", "counts"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.long))
        self.register_buffer("starts", torch.zeros(1, dtype=torch.long))
        for name in ("probabilities", "backoff", "discounts"):
            self.register_buffer(name, torch.zeros(0, dtype=torch.double))

    keys: Tensor
    counts: Tensor
    discounts: Tensor
    histories: Tensor
    starts: Tensor
    probabilities: Tensor
    backoff: Tensor

    def count(self, keys_N: Tensor, counts_N: Tensor, base: int) -> None:
        """Take up n-grams, sorted by key, with their counts, and smooth."""
        self.counts = counts_N
        self.discounts = torch.tensor(discounts(counts_N), dtype=torch.double, device=counts_N.device)
        self.set(keys_N, *smooth(keys_N // base, counts_N, self.discounts), base)

    def set(self, keys_N: Tensor, probabilities_N: Tensor, backoff: Tensor, base: int) -> None:
        """Take up n-grams, sorted by key, with the g of each of their histories."""
        self.histories, counts = (keys_N // base).unique_consecutive(return_counts=True)
        self.starts = torch.cat((counts.new_zeros(1), counts.cumsum(0)))
        self.keys, self.probabilities, self.backoff = keys_N, probabilities_N, backoff

    def find(self, history_M: Tensor) -> tuple[Tensor, Tensor]:
        """The place of each history, and whether it is known."""
        if not len(self.histories):
            return torch.zeros_like(history_M), torch.zeros_like(history_M, dtype=torch.bool)
        place_M = torch.searchsorted(self.histories, history_M).clamp(max=len(self.histories) - 1)
        return place_M, self.histories[place_M] == history_M

    def interpolate(
        self, lower_MV: Tensor, history_M: Tensor, allowed_M: Tensor, left_out_M: Tensor | None = None
    ) -> Tensor:
        """p_MV of this order from that of the order below; unchanged where a history is unknown or not allowed.

        left_out_M: the n-gram of which one occurrence does not count, its place in keys; -1: none.
        """
        place_M, known_M = self.find(history_M)
        rows = (known_M & allowed_M).nonzero()[:, 0]
        place, found = place_M[rows], lower_MV.clone()
        first, stop = self.starts[place], self.starts[place + 1]
        each, entry = ranges(first, stop)
        token = self.keys[entry] - self.histories[place][each] * lower_MV.shape[1]
        own = torch.zeros(len(rows), lower_MV.shape[1], dtype=torch.double, device=rows.device)
        own[each, token] = self.probabilities[entry]
        backoff = self.backoff[place]
        if left_out_M is not None:
            total = torch.zeros_like(backoff).index_add_(0, each, self.counts[entry].double())
            own, backoff = self.leave_out(own, backoff, total, place, left_out_M[rows])
        found[rows] = found[rows] * backoff[:, None] + own
        return found

    def leave_out(
        self, own_RV: Tensor, backoff_R: Tensor, total_R: Tensor, place_R: Tensor, out_R: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The same distributions as if one occurrence of an n-gram had not been counted; total_R: c(h .)."""
        table = torch.cat((self.discounts.new_zeros(1), self.discounts))
        less_R = (total_R - (out_R >= 0).double()).clamp(min=1e-300)
        rows = (out_R >= 0).nonzero()[:, 0]
        out, count = out_R[rows], self.counts[out_R[rows]]
        before, after = table[count.clamp(max=3)], table[(count - 1).clamp(max=3)]
        taken_R = backoff_R * total_R
        taken_R[rows] += after - before
        own_RV = own_RV * (total_R / less_R)[:, None]
        token = self.keys[out] - self.histories[place_R[rows]] * own_RV.shape[1]
        own_RV[rows, token] = (count - 1 - after) / less_R[rows]
        alone = less_R < 0.5  # the history was met nowhere else
        own_RV[alone] = 0.0
        return own_RV, torch.where(alone, 1.0, taken_R / less_R)


class KneserNey(nn.Module):
    """log p(next token | the last K - 1 tokens of its document). Every distribution sums to 1."""

    context = ENDLESS

    def __init__(self, order: int, space: Space) -> None:
        super().__init__()
        self.vocabulary, self.end = space.vocabulary, space.end
        self.orders = nn.ModuleList(Order() for _ in range(order))
        self.head = nn.Identity()

    @property
    def reach(self) -> int:
        """The longest history."""
        return len(self.orders) - 1

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[State] | None = None,
        readout: Readout = logits,
    ) -> Tensor:
        """log p_BTV, or whatever `readout(identity, log p)` makes; positions and cache as in `Decoder`."""
        p_MV = self.laws(*self.read(tokens_BT, positions_BT, None if cache is None else cache[0]))
        return readout(self.head, p_MV.log().float().view(*tokens_BT.shape, self.vocabulary))

    def read(self, tokens_BT: Tensor, positions_BT: Tensor | None, state: Any) -> tuple[Tensor, Tensor]:
        """The last tokens at each place, windows_MR, and how many of them are of the document. Moves the state on."""
        begun: State = self.cache(len(tokens_BT), 0)[0] if state is None else state
        return last_tokens(tokens_BT, positions_BT if state is None else None, begun, self.reach)

    def left(self, windows_MR: Tensor, known_M: Tensor) -> Tensor:
        """log g_k of each history, by order, [K, M]: what is left to shorter n-grams; 0 where a history is unknown."""
        found = []
        for length, (order, history_M) in enumerate(zip(self.orders, self.histories(windows_MR), strict=True)):
            place_M, known = order.find(history_M)  # type: ignore[operator]
            known = known & (known_M >= length)
            backoff: Any = order.backoff
            weight = torch.where(known, backoff[place_M], 1.0) if len(backoff) else torch.ones_like(known).double()
            found.append(weight.log().float())
        return torch.stack(found)

    def laws(self, windows_MR: Tensor, known_M: Tensor, left_out_M: Tensor | None = None) -> Tensor:
        """p_MV after the last tokens of each window, of which the last `known` are of the document.

        left_out_M: the token that stands after each window in the text that was counted; that one occurrence is left
        out, so that the distribution is one of unseen text (Ney, Essen and Kneser, 1994). -1: nothing is left out.
        """
        shape, histories = (len(known_M), self.vocabulary), self.histories(windows_MR)
        p_MV = torch.full(shape, 1 / self.vocabulary, dtype=torch.double, device=known_M.device)
        out = [None] * len(histories) if left_out_M is None else self.left_out(histories, known_M, left_out_M)
        for length, (order, history_M) in enumerate(zip(self.orders, histories, strict=True)):
            p_MV = order.interpolate(p_MV, history_M, known_M >= length, out[length])  # type: ignore[operator]
        return p_MV

    def histories(self, windows_MR: Tensor) -> list[Tensor]:
        """The last 0, 1, 2, ... tokens of each window as numbers."""
        found = [windows_MR.new_zeros(len(windows_MR))]
        for length in range(1, len(self.orders)):
            factor = self.vocabulary ** (length - 1)
            found.append(found[-1] + windows_MR[:, -length] * factor)
        return found

    def left_out(self, histories: list[Tensor], known_M: Tensor, token_M: Tensor) -> list[Tensor]:
        """By order, the place of the n-gram that loses an occurrence, or -1.

        The longest n-gram loses one. A shorter one loses what stood before it if the longer one was met only once.
        """
        found = [torch.full_like(token_M, -1) for _ in histories]
        loses_M = token_M >= 0
        for length in reversed(range(len(histories))):
            order: Any = self.orders[length]
            key_M = histories[length] * self.vocabulary + token_M
            place_M = torch.searchsorted(order.keys, key_M).clamp(max=max(len(order.keys) - 1, 0))
            here_M = (known_M >= length) & loses_M & (order.keys[place_M] == key_M)
            found[length] = torch.where(here_M, place_M, -1)
            loses_M = torch.where(here_M, order.counts[place_M] == 1, loses_M)
        return found

    def cache(self, rows: int, slots: int) -> list[State]:
        """The last K - 1 tokens, and how many tokens were read; `slots` has no meaning here."""
        device = self.orders[0].keys.device
        before = torch.zeros(rows, self.reach, dtype=torch.long, device=device)  # type: ignore[arg-type]
        return [State((before, before.new_zeros(rows)))]

    @torch.no_grad()
    def fit(self, batch: Batch) -> None:
        """Count the rows of a batch and smooth. Raises SanbuError for less text than one n-gram of the order."""
        grams = list(windows(batch, len(self.orders), self.vocabulary))
        if not len(grams[-1]):
            raise SanbuError(f"model.order: given {len(grams)}, but no document of the text has so many tokens")
        found: list[tuple[Tensor, Tensor]] = [each.unique(return_counts=True) for each in grams]
        for k, order in enumerate(self.orders):
            keys, counts = found[k]
            if k + 1 < len(found):
                counts = self.before(keys, counts, found[k + 1][0], k + 1)
            order.count(keys, counts, self.vocabulary)  # type: ignore[operator]

    def before(self, keys_N: Tensor, counts_N: Tensor, longer_M: Tensor, length: int) -> Tensor:
        """How many different tokens stand before each n-gram; its count where it begins a document."""
        size = self.vocabulary**length
        suffixes, different = (longer_M % size).unique(return_counts=True)
        place = torch.searchsorted(suffixes, keys_N).clamp(max=max(len(suffixes) - 1, 0))
        met = suffixes[place] == keys_N if len(suffixes) else torch.zeros_like(keys_N, dtype=torch.bool)
        begins = torch.zeros_like(met)
        if length > 1 and self.end is not None:
            begins = keys_N // (size // self.vocabulary) == self.end
        continued = torch.where(met, different[place], 1) if len(suffixes) else counts_N  # 1: cut by the row's start
        return torch.where(begins, counts_N, continued)


def last_tokens(tokens_BT: Tensor, positions_BT: Tensor | None, state: State, reach: int) -> tuple[Tensor, Tensor]:
    """The last tokens at each place, windows_MR, and how many of them are of the document. Moves the state on.

    state: the tokens before these, [B, R], and how many were read; positions_BT: where documents start within a row.
    """
    rows, time = tokens_BT.shape
    before_BR, read_B = state.tensors
    whole_BS = torch.cat((before_BR, tokens_BT), 1)
    known_BT = read_B[:, None] + torch.arange(1, time + 1, device=tokens_BT.device)
    if positions_BT is not None:
        known_BT = positions_BT + 1
    reads_B = torch.full_like(read_B, time) if state.reads is None else state.reads
    places_BR = reads_B[:, None] + torch.arange(reach, device=tokens_BT.device)
    state.tensors = (whole_BS.gather(1, places_BR), read_B + reads_B)
    if not reach:
        return tokens_BT.new_zeros(rows * time, 0), known_BT.flatten()
    return whole_BS.unfold(1, reach, 1)[:, 1:].flatten(0, 1), known_BT.flatten()


def ranges(first_R: Tensor, stop_R: Tensor) -> tuple[Tensor, Tensor]:
    """The integers of first_r to stop_r - 1 for each r, one after another, and the r of each."""
    count_R = stop_R - first_R
    each = torch.arange(len(count_R), device=count_R.device).repeat_interleave(count_R)
    before_R = count_R.cumsum(0) - count_R
    number = torch.arange(len(each), device=each.device)
    return each, number + (first_R - before_R)[each]


def windows(batch: Batch, order: int, base: int) -> Iterator[Tensor]:
    """The keys of all n-grams of 1, 2, ... tokens in a batch: a target, after tokens of its document."""
    tokens_BT, targets_BT = batch["tokens"], batch["targets"]
    time = torch.arange(tokens_BT.shape[1], device=tokens_BT.device)
    known_BT = batch.get("positions", time.expand_as(tokens_BT)) + 1
    keys_BT = targets_BT.clone()
    for length in range(order):
        if length:
            earlier = nn.functional.pad(tokens_BT, (length - 1, 0))[:, : tokens_BT.shape[1]]
            keys_BT = keys_BT + earlier * base**length
        yield keys_BT[(targets_BT != IGNORED) & (known_BT >= length)]


def smooth(histories_N: Tensor, counts_N: Tensor, discounts_3: Tensor) -> tuple[Tensor, Tensor]:
    """Discounted probabilities of n-grams, sorted by history, and the g of each history."""
    discount_N = torch.cat((discounts_3.new_zeros(1), discounts_3))[counts_N.clamp(max=3)]
    _, place_N = histories_N.unique_consecutive(return_inverse=True)
    total = discounts_3.new_zeros(int(place_N[-1]) + 1).index_add_(0, place_N, counts_N.double())
    taken = torch.zeros_like(total).index_add_(0, place_N, discount_N)
    return (counts_N - discount_N) / total[place_N], taken / total


def discounts(counts_N: Tensor) -> tuple[float, ...]:
    """D_1, D_2 and D_3+ of Chen and Goodman: D_i = i - (i + 1) Y n_{i+1} / n_i, Y = n_1 / (n_1 + 2 n_2)."""
    one, two, three, four = (int((counts_N == count).sum()) for count in (1, 2, 3, 4))
    if not one * two * three:
        return FALLBACK
    y = one / (one + 2 * two)
    found = 1 - 2 * y * two / one, 2 - 3 * y * three / two, 3 - 4 * y * four / three
    return found if all(0 < d < i for i, d in enumerate(found, 1)) else FALLBACK
