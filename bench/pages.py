"""The tables of docs/benchmarks.md, made from bench/figures.json. A table stands between two comments with its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FIGURES, PAGE = Path("bench/figures.json"), Path("docs/benchmarks.md")
Figures = Mapping[str, Any]
BETWEEN = re.compile(r"(<!-- table: ([\w-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


@dataclass(frozen=True)
class Line:
    """One row: what is measured, the keys of both figures, what the peer is, the aim.

    lower: whether less is better; then the ratio is the peer's figure divided by ours.
    """

    what: str
    ours: str
    peer: str
    about: str
    aim: str = ""
    digits: int = 0
    lower: bool = False

    def cells(self, figures: Figures) -> list[str]:
        """The cells of the row. `about` may name a key in braces."""
        mine, theirs = figures[self.ours], figures[self.peer]
        ratio = theirs / mine if self.lower else mine / theirs
        about = re.sub(r"\{(.+?)\}", lambda key: re.sub(r"^(peer|trl)[ .]", "", str(figures[key[1]])), self.about)
        return [self.what, self.form(mine), f"{self.form(theirs)} ({about})", f"{ratio:.2f}x", self.aim]

    def form(self, value: float) -> str:
        """A figure as text."""
        return f"{value:,.{self.digits}f}"


def peer_lines(title: str, *lines: Line) -> Callable[[Figures], str]:
    """A table of Sanbu against peers. Rows without figures are left out."""

    def table(figures: Figures) -> str:
        rows = [line.cells(figures) for line in lines if line.ours in figures and line.peer in figures]
        return markdown([title, "Sanbu", "peer", "ratio", "aim"], rows)

    return table


def markdown(titles: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(cells) + " |" for cells in (titles, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(titles), *lines[1:]]) + "\n"


def drawing(kind: str, name: str) -> list[Line]:
    """The rows of one denoiser."""
    about = f"diffusers; {{{kind}.batch%d.settings}}"
    key = f"{kind}.batch%d"
    return [
        Line(f"{name}, DDIM-50, batch {rows}, pictures/s", f"{key % rows}.pictures_per_second", f"{key % rows}.peer",
             about % rows, "1.3x", 2)
        for rows in (16, 1)
    ]  # fmt: skip


def serving(case: str, kind: str, aim: str) -> Line:
    """One row of the service."""
    return Line(
        f"{case} client{'s' if case != '1' else ''}, {kind}, tokens/s",
        f"clients.{case}.sanbu-{kind}.rate",
        f"clients.{case}.peer.rate",
        f"{{clients.{case}.peer}}",
        aim,
        1,
    )


TABLES: dict[str, Callable[[Figures], str]] = {
    "text": peer_lines(
        "what",
        Line("Shakespeare by character, 0.8M parameters, 2,000 steps, loss", "shakespeare.val_loss",
             "shakespeare.peer_tuned_val_loss", "nanoGPT's preset, its learning rate tuned", "1.53", 3, True),
        Line("training, GPT-2 shape 6 x 256, tokens/s", "train.sanbu_tokens_per_second",
             "train.peer_tokens_per_second", "transformers, {train.peer_setting}", "1.25x"),
        *(
            Line(f"generation, batch {rows}, {kind}, tokens/s", f"generate{name}.batch{rows}.sanbu_tokens_per_second",
                 f"generate{name}.batch{rows}.peer_tokens_per_second",
                 f"transformers, {{generate{name}.batch{rows}.peer_setting}}", aim)
            for name, kind, aims in (("", "float32", ("2x", "1.5x")), (".bfloat16", "bfloat16", ("3x", "2.5x")))
            for rows, aim in zip((1, 16), aims, strict=True)
        ),
        Line("Muon, % of a training step at width 768, 8 x 1,024 tokens", "muon.share", "muon.peer",
             "torch.optim.Muon", "10 %", 1, True),
        Line("cross-entropy at 32k words, peak MB", "chunked.sanbu_mb", "chunked.peer_mb", "all logits", "4x", 0, True),
        Line("30 MB of text into shards, MB/s", "shards.sanbu_mb_per_second", "shards.peer_mb_per_second",
             "`datasets.map`, {shards.peer_setting}", "1.5x", 2),
    ),
    "images": peer_lines(
        "what",
        *drawing("unet", "U-Net, 28 x 28"),
        *drawing("dit", "DiT"),
        Line("PixelCNN, 28 x 28, ms per picture at batch 16", "pixelcnn.ms_per_picture", "pixelcnn.peer",
             "one full forward pass per pixel", "20x", 0, True),
        Line("import, CPU s", "import.seconds", "import.peer", "`import diffusers`", "5x", 3, True),
        Line("loading a run until it can draw, CPU s", "import.ready.seconds", "import.ready.peer",
             "`DiffusionPipeline` and its parts", "", 2, True),
    ),
    "alignment": peer_lines(
        "what",
        Line("SFT, tokens/s without padding", "sft.sanbu", "sft.trl", "TRL, {sft.peer}", "1.5x"),
        Line("DPO, pairs/s", "dpo.sanbu", "dpo.trl", "TRL, {dpo.peer}", "1.5x", 1),
        Line("GRPO, 8 answers per question, answers/s", "grpo.sanbu", "grpo.trl", "TRL, {grpo.peer}", "5x", 1),
    ),
    "service": peer_lines(
        "what",
        serving("1", "bfloat16", "2x"), serving("1", "float32", "1.5x"),
        serving("8", "bfloat16", "2x"), serving("32", "bfloat16", "2x"),
        Line("continuous against static batching, tokens/s", "continuous.engine", "continuous.static",
             "64 requests of unequal lengths", "2x"),
        Line("first token after 512 cached tokens, ms", "prefix.known_ms", "prefix.unknown_ms",
             "not cached", "5x", 1, True),
    ),
}  # fmt: skip


def write(figures: Figures) -> None:
    """Put the tables into the page."""
    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(filled(page, figures), encoding="utf-8")


def filled(page: str, figures: Figures) -> str:
    """The page with its tables made anew; a table without figures stays."""

    def table(found: re.Match[str]) -> str:
        made = TABLES[found[2]](figures)
        return found[1] + made + found[3] if made.count("\n") > 2 else found[0]

    return BETWEEN.sub(table, page)


def read() -> dict[str, Any]:
    """The figures of the last run of every bench."""
    found: dict[str, Any] = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    return found
