"""Scores as tokens, and the grammar of these tokens.

    END TEMPO (BAR (POSITION (NOTE LENGTH)+)*)+ END

BAR begins the next bar; POSITION is a step within it; NOTE is a voice and a pitch. Positions ascend within a bar, and
notes at a position ascend by voice and pitch. Every score has one sequence, and every legal sequence is of one score
(Huang and Yang, "Pop Music Transformer", 2020, with fewer kinds of tokens). Shapes: B rows, S slots, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sanbu.codecs.music.score import BAR, FASTEST, LONGEST, LOWEST, PITCHES, SLOWEST, STEP, VOICES, Note, Score

END = 0
BEGINS_BAR = 1
TEMPO = 2  # the first of its ids, as are those below
TEMPI = (FASTEST - SLOWEST) // STEP + 1
POSITION = TEMPO + TEMPI
LENGTH = POSITION + BAR
NOTE = LENGTH + LONGEST
NOTES = len(VOICES) * PITCHES
VOCABULARY = NOTE + NOTES


def encode(score: Score) -> list[int]:
    """The tokens of a score, from END to END."""
    ids = [END, TEMPO + (score.tempo - SLOWEST) // STEP]
    bar, position = -1, -1
    for start, voice, pitch, length in score.notes:
        new_bar, new_position = divmod(start, BAR)
        ids += [BEGINS_BAR] * (new_bar - bar)
        if new_bar > bar or new_position > position:
            ids.append(POSITION + new_position)
        ids += [NOTE + voice * PITCHES + pitch - LOWEST, LENGTH + length - 1]
        bar, position = new_bar, new_position
    return [*ids, END]


def decode(ids: Sequence[int]) -> Score | None:
    """The score of a legal sequence, or of the beginning of one; None before its first note is complete."""
    body = list(ids)[1:]
    body = body[: body.index(END)] if END in body else body
    notes: list[Note] = []
    bar, start, key = -1, 0, 0
    for token in body:
        kind, value = kind_of(token)
        if kind == "bar":
            bar += 1
        elif kind == "position":
            start = bar * BAR + value
        elif kind == "note":
            key = value
        elif kind == "length":
            voice, pitch = divmod(key, PITCHES)
            notes.append(Note(start, voice, pitch + LOWEST, value + 1))
    return Score(tuple(notes), kind_of(body[0])[1] * STEP + SLOWEST) if notes else None


def first_illegal(ids: Sequence[int]) -> int | None:
    """The place of the first token that the grammar does not allow; None in a legal sequence or the start of one."""
    tokens_S = torch.tensor(list(ids))
    S = len(tokens_S)
    if tokens_S[0] != END:
        return 0
    may_SV = allowed(tokens_S.expand(S, S), torch.arange(1, S + 1))
    wrong = (~may_SV[:-1].gather(1, tokens_S[1:, None])).nonzero()
    return int(wrong[0, 0]) + 1 if len(wrong) else None


def kind_of(token: int) -> tuple[str, int]:
    """The kind of a token, and its number among its kind."""
    firsts = (("note", NOTE), ("length", LENGTH), ("position", POSITION), ("tempo", TEMPO), ("bar", BEGINS_BAR))
    return next(((kind, token - first) for kind, first in firsts if token >= first), ("end", 0))


def allowed(tokens_BS: Tensor, length_B: Tensor) -> Tensor:
    """Which tokens may follow the first `length` ones of each row, bool [B, V]."""
    S = tokens_BS.shape[1]
    place_S = torch.arange(S, device=tokens_BS.device)
    read_BS = place_S < length_B[:, None]
    tokens_BS = torch.where(read_BS, tokens_BS, -1)
    last_B1 = tokens_BS.gather(1, length_B[:, None] - 1)
    bars_BS = (tokens_BS == BEGINS_BAR).cumsum(1)
    positions_BS = torch.where(among(tokens_BS, POSITION, LENGTH), tokens_BS - POSITION, 0)
    # a token without a position counts as position 0, so the running maximum is the time of each token
    time_BS = (bars_BS * BAR + positions_BS).cummax(1).values
    now_B1 = time_BS.gather(1, length_B[:, None] - 1)
    id_V = torch.arange(VOCABULARY, device=tokens_BS.device)
    after_length = among(last_B1, LENGTH, NOTE)
    after_position = among(last_B1, POSITION, LENGTH)
    free_BV = free(tokens_BS, time_BS, now_B1)
    found = (last_B1 == END) & among(id_V, TEMPO, POSITION)
    found |= (among(last_B1, TEMPO, POSITION) | (last_B1 == BEGINS_BAR) | after_length) & (id_V == BEGINS_BAR)
    found |= (last_B1 == BEGINS_BAR) & among(id_V, POSITION, LENGTH)
    found |= after_length & among(id_V, POSITION, LENGTH) & (id_V - POSITION > now_B1 % BAR)
    found |= after_length & (id_V == END)
    found |= among(last_B1, NOTE, VOCABULARY) & among(id_V, LENGTH, NOTE)
    return found | ((after_position | after_length) & free_BV)


def free(tokens_BS: Tensor, time_BS: Tensor, now_B1: Tensor) -> Tensor:
    """Which notes may begin now, bool [B, V]: those that do not sound, and that come after the others of this time."""
    note_BS = among(tokens_BS, NOTE, VOCABULARY)
    following_BS = torch.nn.functional.pad(tokens_BS[:, 1:], (0, 1), value=-1)
    lengths_BS = (following_BS - LENGTH + 1).clamp(min=0)
    ends_BS = torch.where(note_BS, time_BS + lengths_BS, 0)
    index_BS = torch.where(note_BS, tokens_BS, 0)
    until_BV = torch.zeros(len(tokens_BS), VOCABULARY, dtype=torch.long, device=tokens_BS.device)
    until_BV = until_BV.scatter_reduce(1, index_BS, ends_BS, "amax")
    here_BS = torch.where(note_BS & (time_BS == now_B1), tokens_BS, -1)
    id_V = torch.arange(VOCABULARY, device=tokens_BS.device)
    return (until_BV <= now_B1) & (id_V > here_BS.amax(1, keepdim=True)) & (id_V >= NOTE)


def among(tokens: Tensor, first: int, after: int) -> Tensor:
    """Which tokens lie from `first` to below `after`."""
    return (tokens >= first) & (tokens < after)
