"""Symbols and frames of speech: monotonic alignment search, expansion by durations, rounding of durations.

B batch, S symbols, T frames, D width. The search is the dynamic program of Glow-TTS (Kim and others, 2020): among all
ways to give every symbol at least one frame, in order, the one with the largest sum of scores.
"""

from __future__ import annotations

import torch
from torch import Tensor


def search_durations(scores_BST: Tensor, symbols_B: Tensor, frames_B: Tensor) -> Tensor:
    """Durations [B, S] of the best monotonic alignment, in frames; their sum is `frames_B` exactly.

    scores: of each pair of symbol and frame; what lies beyond `symbols_B` and `frames_B` is not read. Raises ValueError
    if a row has fewer frames than symbols, or no symbol.
    """
    if bool((frames_B < symbols_B).any()) or bool((symbols_B < 1).any()):
        raise ValueError(
            f"alignment: given {symbols_B.tolist()} symbols for {frames_B.tolist()} frames; at most one each"
        )
    B, S, T = scores_BST.shape
    worst = torch.full((B, 1), -torch.inf, dtype=scores_BST.dtype, device=scores_BST.device)
    best_BS = torch.cat((scores_BST[:, :1, 0], worst.expand(B, S - 1)), 1)
    moved = []  # moved[t - 1] [B, S]: whether the best way to symbol s at frame t came from symbol s - 1
    for t in range(1, T):
        before_BS = torch.cat((worst, best_BS[:, :-1]), 1)
        moved.append(before_BS > best_BS)
        best_BS = torch.maximum(best_BS, before_BS) + scores_BST[:, :, t]
    return walk_back(moved, symbols_B, frames_B, S)


def walk_back(moved: list[Tensor], symbols_B: Tensor, frames_B: Tensor, S: int) -> Tensor:
    """Count the frames of each symbol along the best way, from the last frame to the first."""
    symbol_B = symbols_B - 1
    durations_BS = torch.zeros(len(symbols_B), S, dtype=torch.long, device=symbols_B.device)
    for t in reversed(range(len(moved) + 1)):
        inside_B = (t < frames_B).long()
        durations_BS.scatter_add_(1, symbol_B[:, None], inside_B[:, None])
        if t:
            came_B = moved[t - 1].gather(1, symbol_B[:, None])[:, 0]
            symbol_B = symbol_B - inside_B * came_B.long()
    return durations_BS


def expand(hidden_BSD: Tensor, durations_BS: Tensor, frames: int | None = None) -> Tensor:
    """[B, S, D] -> [B, T, D]: each symbol as often as its duration; rows are padded with zeros.

    frames: T, at least the largest sum of durations; None: that sum.
    """
    total_B = durations_BS.sum(1)
    longest = int(total_B.max()) if frames is None else frames
    t_T = torch.arange(longest, device=durations_BS.device)
    index_BT = symbols_at(durations_BS, t_T)
    chosen_BTD = hidden_BSD.gather(1, index_BT[..., None].expand(-1, -1, hidden_BSD.shape[2]))
    return torch.where((t_T < total_B[:, None])[..., None], chosen_BTD, 0.0)


def symbols_at(durations_BS: Tensor, t_T: Tensor) -> Tensor:
    """The symbol [B, T] that is spoken at each of some frames, [T] or [B, T]; beyond a row's end the last of all."""
    ends_BS = durations_BS.cumsum(1)
    found_BT = torch.searchsorted(ends_BS, t_T.expand(len(ends_BS), -1).contiguous(), right=True)
    return found_BT.clamp(max=durations_BS.shape[1] - 1)


def whole_durations(real_BS: Tensor, rate: float = 1.0) -> Tensor:
    """Real durations, in frames, as whole ones: their running sum is rounded, so no error adds up.

    rate: of speaking; 0.8 gives 1.25 times the frames, to half a frame in total. Raises ValueError unless above 0.
    """
    if not rate > 0:
        raise ValueError(f"rate: given {rate}, allowed: a number above 0")
    ends_BS = (real_BS.double().clamp(min=0).cumsum(1) / rate).round().long()
    return ends_BS.diff(dim=1, prepend=torch.zeros_like(ends_BS[:, :1]))
