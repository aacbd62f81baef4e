"""Decision trees over the last tokens: p(next token) is the mean of the distributions of their leaves (Bahl, 1989).

A tree asks about numbers, and the numbers of tokens mean nothing. So a token is described by what tends to follow it:
its coordinates in the first principal directions of the matrix log(1 + count(token, next)). Tokens near each other are
followed by similar tokens, and a threshold separates groups of them, such as vowels and consonants. B batch, T time,
K tokens that are seen, C coordinates per token, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from sanbu.layers.forest import LAWS, Forest, Tree
from sanbu.layers.state import State
from sanbu.models.model import ModelConfig
from sanbu.models.tokens.ngram import last_tokens
from sanbu.models.tokens.recurrent import ENDLESS
from sanbu.models.tokens.transformer import Readout, logits
from sanbu.space import IGNORED, Batch, Space


class TokenTrees(ModelConfig):
    """A forest over the last tokens, fitted at once."""

    kind: Literal["token-trees"] = "token-trees"
    family: ClassVar[str] = "tokens"
    searches: ClassVar[tuple[str, ...]] = ("closed-form",)
    reach: int = Field(8, ge=1, description="tokens that the trees see")
    coordinates: int = Field(4, ge=1, description="numbers that describe a token")
    trees: int = Field(8, ge=1)
    leaves: int = Field(4096, ge=2, description="most leaves of a tree")
    leaf: int = Field(8, ge=1, description="least tokens in a leaf")
    sample: int = Field(250_000, ge=1, description="places of the text that a tree is fitted to, drawn from all")

    def build(self, space: Space) -> nn.Module:
        return ForestOfTokens(self, space)


class ForestOfTokens(nn.Module):
    """log p(next token | the last K tokens of its document)."""

    context = ENDLESS

    def __init__(self, config: TokenTrees, space: Space) -> None:
        super().__init__()
        self.config, self.vocabulary, self.reach = config, space.vocabulary, config.reach
        size = min(config.coordinates, space.vocabulary)
        self.register_buffer("places", torch.zeros(space.vocabulary + 1, size))  # of tokens, and of none
        self.forest = Forest(space.vocabulary, config.trees, config.leaves)
        self.head = nn.Identity()

    places: Tensor

    def forward(
        self,
        tokens_BT: Tensor,
        positions_BT: Tensor | None = None,
        cache: Sequence[State] | None = None,
        readout: Readout = logits,
    ) -> Tensor:
        """log p_BTV, or whatever `readout(identity, log p)` makes; positions and cache as in `Decoder`."""
        state = self.cache(len(tokens_BT), 0)[0] if cache is None else cache[0]
        windows_MK, known_M = last_tokens(tokens_BT, positions_BT if cache is None else None, state, self.reach)
        scores_MV = self.forest(self.features(windows_MK, known_M)).log_softmax(-1)
        return readout(self.head, scores_MV.view(*tokens_BT.shape, self.vocabulary))

    def features(self, windows_MK: Tensor, known_M: Tensor) -> Tensor:
        """The coordinates of the last K tokens, [M, K C]; those of no token where a document has fewer."""
        back_K = torch.arange(self.reach, 0, -1, device=known_M.device)
        seen_MK = torch.where(back_K <= known_M[:, None], windows_MK, self.vocabulary)
        return self.places[seen_MK].flatten(1)

    def cache(self, rows: int, slots: int) -> list[State]:
        """The last K tokens, and how many tokens were read; `slots` has no meaning here."""
        before = torch.zeros(rows, self.reach, dtype=torch.long, device=self.places.device)
        return [State((before, before.new_zeros(rows)))]

    @torch.no_grad()
    def fit(self, batch: Batch) -> None:
        """Describe the tokens, then grow every tree on a sample of the places of a batch."""
        tokens_BT, targets_BT = batch["tokens"], batch["targets"]
        taught = (targets_BT != IGNORED).flatten().nonzero()[:, 0]
        self.describe(tokens_BT.flatten()[taught], targets_BT.flatten()[taught])
        state = self.cache(len(tokens_BT), 0)[0]
        windows_MK, known_M = last_tokens(tokens_BT, batch.get("positions"), state, self.reach)
        generator = torch.Generator().manual_seed(0)
        self.forest.state.zero_()
        for number in range(self.config.trees):
            size = min(self.config.sample, len(taught))
            drawn = taught[torch.randint(len(taught), (size,), generator=generator)]
            x = self.features(windows_MK[drawn], known_M[drawn]).cpu().numpy()
            self.forest.write(grown(x, targets_BT.flatten()[drawn].cpu().numpy(), self.config, self.vocabulary, number))
        self.forest.state[2] = LAWS

    def describe(self, tokens_N: Tensor, next_N: Tensor) -> None:
        """Set the coordinates of every token: principal directions of what follows it, each of deviation 1."""
        base, size = self.vocabulary, self.places.shape[1]
        counts = torch.bincount(tokens_N * base + next_N, minlength=base * base).view(base, base).double()
        table = (counts + 1).log()
        left, scale, _ = torch.linalg.svd(table - table.mean(0), full_matrices=False)
        found = left[:, :size] * scale[:size]
        self.places.zero_()
        self.places[:-1] = (found / found.std(0).clamp(min=1e-12)).float()
        self.places[-1] = self.places[:-1].amax(0) + 1  # no token stands at the end of every coordinate


def grown(x: np.ndarray, target: np.ndarray, config: TokenTrees, vocabulary: int, seed: int) -> Tree:
    """One tree by entropy, with random features at each split; its leaves hold distributions over tokens."""
    from sklearn.tree import DecisionTreeClassifier

    fitted: Any = DecisionTreeClassifier(
        criterion="entropy",
        max_leaf_nodes=config.leaves,
        min_samples_leaf=config.leaf,
        max_features=0.5,
        random_state=seed,
    ).fit(x, target)
    found = fitted.tree_
    values = np.zeros((found.node_count, vocabulary), np.float32)
    counts = found.value[:, 0]
    values[:, fitted.classes_] = counts / counts.sum(1, keepdims=True)
    self_place = np.arange(found.node_count)
    leaf = found.children_left < 0
    child = np.stack((found.children_left, found.children_right), 1)
    child = np.where(leaf[:, None], self_place[:, None], child)
    missing = np.zeros(found.node_count, bool)
    return Tree(found.feature, found.threshold, child, missing, values, found.max_depth)
