"""n-grams in the ARPA format of SRILM and kenlm: text, log10 p of each n-gram, and the weight of each history.

A token stands as its character. What a word of the format cannot be (space, control characters, a lone byte, "<")
stands as <0x..>, its bytes. The end token is <s> before a text and </s> behind it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

import torch
from torch import Tensor

from sanbu.checkpoints import Writer
from sanbu.codecs.text import TextCodec
from sanbu.codecs.tokenizer import Byte, Characters, TokenizerConfig
from sanbu.config import kind_of
from sanbu.data.text_rows import Text
from sanbu.files import replace_atomically
from sanbu.interop.families.sheet import InteropError
from sanbu.models.tokens.ngram import KneserNey, NGram, Order
from sanbu.objectives.next_token import NextToken
from sanbu.optimizers.closed_form import ClosedForm
from sanbu.recipe import Recipe, Schedule
from sanbu.run import Run
from sanbu.strategies.autoregressive import Autoregressive

START, STOP, UNKNOWN = "<s>", "</s>", "<unk>"
NEVER = -99.0  # log10 p of what is never predicted, as the format has it
BYTES = re.compile(r"^<0x((?:[0-9A-F]{2})+)>$")
COUNT = re.compile(r"^ngram (\d+)=(\d+)$")


def export_folder(run: Run, out: Path) -> Path:
    """Write the n-grams of a run into an ARPA file. Raises InteropError for other models, and if the file exists."""
    model = run.model
    if not isinstance(model, KneserNey):
        raise InteropError(f"{run.folder}: ARPA files hold n-grams, but its model is {kind_of(run.recipe.model)!r}")
    if out.exists():
        raise InteropError(f"{out} already exists")
    pieces = run.codec.vocabulary() or ()
    out.parent.mkdir(parents=True, exist_ok=True)
    with replace_atomically(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        write(file, model, [word_of(bytes(piece)) for piece in pieces])
    return out


def word_of(piece: bytes) -> str:
    """A token as a word of the format."""
    try:
        text = piece.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and text.strip() == text and text and not text.startswith("<"):
        return text
    return f"<0x{piece.hex().upper()}>"


def write(file: TextIO, model: KneserNey, words: Sequence[str]) -> None:
    """Write the sections of a model, one per order."""
    p_by_order = probabilities(model)
    file.write("\\data\\\n")
    sizes = [len(words) + 2, *(len(order.keys) for order in orders_of(model)[1:])]
    file.writelines(f"ngram {length}={size}\n" for length, size in enumerate(sizes, 1))
    for length, p_N in enumerate(p_by_order, 1):
        file.write(f"\n\\{length}-grams:\n")
        keys = torch.arange(len(words)) if length == 1 else orders_of(model)[length - 1].keys
        weights = histories(model, length, keys)
        file.writelines(lines(model, length, keys, p_N, weights, words))
    file.write("\n\\end\\\n")


def orders_of(model: KneserNey) -> list[Order]:
    """The orders of a model."""
    return [order for order in model.orders if isinstance(order, Order)]


def probabilities(model: KneserNey) -> list[Tensor]:
    """p of every n-gram, by order; of every token at order 1."""
    base, orders = model.vocabulary, orders_of(model)
    nothing = torch.zeros(1, model.reach, dtype=torch.long)
    found = [model.laws(nothing, nothing.new_zeros(1))[0]]
    for length, order in enumerate(orders[1:], 2):
        suffix = order.keys % base ** (length - 1)
        shorter = torch.arange(base) if length == 2 else orders[length - 2].keys
        place, _ = order.find(order.keys // base)
        lower = found[-1][torch.searchsorted(shorter, suffix)]
        found.append(order.probabilities + order.backoff[place] * lower)
    return found


def histories(model: KneserNey, length: int, keys_N: Tensor) -> Tensor:
    """The weight of the order below after each n-gram; 1 where the n-gram is no history."""
    if length == len(model.orders):
        return torch.ones(len(keys_N), dtype=torch.double)
    order = orders_of(model)[length]
    place, known = order.find(keys_N)
    return torch.where(known, order.backoff[place], 1.0)


def lines(
    model: KneserNey, length: int, keys_N: Tensor, p_N: Tensor, weights_N: Tensor, words: Sequence[str]
) -> Iterator[str]:
    """The lines of a section."""
    base, end = model.vocabulary, model.end
    highest = length == len(model.orders)
    if length == 1:
        start = math.log10(float(weights_N[end])) if end is not None else 0.0
        yield f"{NEVER}\t{UNKNOWN}\n"
        yield f"{NEVER}\t{START}\t{start:.8g}\n"
    for key, p, weight in zip(keys_N.tolist(), p_N.tolist(), weights_N.tolist(), strict=True):
        ids = [key // base ** (length - 1 - place) % base for place in range(length)]
        spelt = [START if i == end else words[i] for i in ids]
        if ids[-1] == end:
            spelt[-1] = STOP
        tail = "" if highest or spelt[-1] == STOP else f"\t{math.log10(weight):.8g}"
        yield f"{math.log10(p):.8g}\t{' '.join(spelt)}{tail}\n"


# -- in ---------------------------------------------------------------------------------------------------------------


def is_arpa(path: Path) -> bool:
    """Whether a file begins as an ARPA file does."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(512).lstrip().startswith(b"\\data\\")


def import_run(path: Path, folder: Path) -> Run:
    """Make a run from an ARPA file of characters or bytes. Raises InteropError naming the line that does not fit."""
    sections = read(path)
    words = [spelt for (spelt,) in sections[0] if spelt not in (START, STOP, UNKNOWN)]
    tokenizer = tokenizer_of(words, path)
    built = tokenizer.build(())
    ids = {word_of(bytes(piece)): number for number, piece in enumerate(built.pieces)}
    end: int = tokenizer.size() - 1
    ids |= {START: end, STOP: end}
    recipe = Recipe(
        name="ngram",
        data=Text(tokenizer=tokenizer, context=1024),
        model=NGram(order=len(sections)),
        objective=NextToken(),
        optimizer=ClosedForm(),
        strategy=Autoregressive(),
        schedule=Schedule(steps=1, batch="all"),
    )
    model = recipe.model.build(recipe.data.space())
    assert isinstance(model, KneserNey)
    fill(model, sections, ids)
    made = Writer.create(folder, recipe, TextCodec(built).save)
    made.save_model(model)
    return Run.open(folder)


Section = dict[tuple[str, ...], tuple[float, float]]  # log10 p and log10 of the weight, by n-gram


def read(path: Path) -> list[Section]:
    """The sections of a file. Raises InteropError with the number of the line that does not read."""
    counts: list[int] = []
    sections: list[Section] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        text = line.strip()
        if (match := COUNT.match(text)) is not None:
            counts.append(int(match[2]))
        elif text.endswith("-grams:"):
            sections.append({})
        elif text and not text.startswith("\\"):
            parts = text.split()
            length = len(sections)
            try:
                gram, rest = tuple(parts[1 : length + 1]), parts[length + 1 :]
                sections[-1][gram] = float(parts[0]), float(rest[0]) if rest else 0.0
            except (ValueError, IndexError):
                raise InteropError(
                    f"{path}, line {number}: {text[:60]!r} is no {length}-gram of an ARPA file"
                ) from None
    found = [len(section) for section in sections]
    if not sections or found != counts:
        raise InteropError(
            f"{path}: the header counts {counts} n-grams, but the file has {found}; it is cut or damaged"
        )
    return sections


def piece_of(word: str) -> bytes:
    """The bytes of a word of the format."""
    match = BYTES.match(word)
    return word.encode("utf-8") if match is None else bytes.fromhex(match[1])


def tokenizer_of(words: Sequence[str], path: Path) -> TokenizerConfig:
    """Bytes or characters. Raises InteropError for words, for which there is no tokenizer here."""
    pieces = list(map(piece_of, words))
    if {bytes([value]) for value in range(256)} == set(pieces):
        return Byte()
    characters = [piece.decode("utf-8", "replace") for piece in pieces]
    long = next((word for word, text in zip(words, characters, strict=True) if len(text) != 1), None)
    if long is not None:
        raise InteropError(f"{path}: n-grams of words ({long!r}) cannot be imported; allowed: of characters or bytes")
    return Characters(alphabet="".join(characters))


def fill(model: KneserNey, sections: Sequence[Section], ids: dict[str, int]) -> None:
    """Set the orders of a model: from p and the weight of the order below, the part that is this order's own."""
    base = model.vocabulary
    lower: dict[tuple[int, ...], float] = {(): 1 / base}
    weights: dict[tuple[int, ...], float]
    for length, section in enumerate(sections, 1):
        p = {gram: 10**value for gram, (value, _) in entries(section, ids) if value > NEVER}
        weights = {(): -math.inf}
        if length > 1:  # <s> and </s> are one token here, and the weight is that of <s>
            histories_before = (pair for pair in sections[length - 2].items() if pair[0][-1] != STOP)
            weights = {gram: weight for gram, (_, weight) in entries(dict(histories_before), ids)}
        keys = {key_of(gram, base): gram for gram in p}
        own, backoff = [], {}
        for _, gram in sorted(keys.items()):
            weight = 10 ** weights.get(gram[:-1], 0.0)
            own.append(p[gram] - weight * lower[gram[1:]])
            backoff[gram[:-1]] = weight
        order, every = orders_of(model)[length - 1], torch.tensor(sorted(keys))
        order.set(every, doubles(own), doubles(list(backoff.values())), base)
        lower = p


def key_of(gram: tuple[int, ...], base: int) -> int:
    """An n-gram as a number."""
    key = 0
    for token in gram:
        key = key * base + token
    return key


def entries(section: Section, ids: dict[str, int]) -> Iterator[tuple[tuple[int, ...], tuple[float, float]]]:
    """The n-grams of a section as ids, without the unknown word."""
    for gram, values in section.items():
        if UNKNOWN not in gram:
            yield tuple(ids[word] for word in gram), values


def doubles(values: Sequence[float]) -> Tensor:
    """A tensor of float64."""
    return torch.tensor(values, dtype=torch.double)
