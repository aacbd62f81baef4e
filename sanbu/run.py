"""A run as it is read: a folder that explains itself.

recipe.json          the resolved recipe, the version that wrote it, hashes of the codec's files and of its parents
model.safetensors    the weights to sample from (the average, where the recipe keeps one)
metrics.jsonl        one line per step; names that begin with time/ are timings, the rest is deterministic
checkpoints/         step-00000100/ holds everything that training needs to continue bit for bit
samples/             samples drawn during training
finished.json        the last checkpoint and the hash of the model, once training has ended
averages/            averages of the weights at each checkpoint, where the recipe keeps a power-function one
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from itertools import chain
from operator import methodcaller
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sanbu.checkpoints import FORMAT, FORMATS, RunError, Writer, intact, is_run, model_hash, standing
from sanbu.codecs.codec import Codec, Follower, evenly, read_by, stops_of
from sanbu.config import ConfigError, contents, load, module_of, nearest
from sanbu.files import check_seal, file_hash, load_weights, nearest_file, read_object, read_tensors, written_before
from sanbu.machine import find_device, ready_to_draw
from sanbu.memory.check import check_weights, headers
from sanbu.parallel.sharing import by_first, over_ranks, sharers
from sanbu.progress import progress_rows
from sanbu.recipe import Recipe
from sanbu.space import Batch, Draft, row_count
from sanbu.strategies.strategy import consecutive, generate, with_progress

T = TypeVar("T")
RESULTS = methodcaller("results")  # of a reader of drafts
FRAMES = 60  # of the animation of an export, at most


class Run:
    """One run folder. Attributes are read from disk when they are first used.

    >>> run = sanbu.load("runs/first")
    >>> run.generate("import ", n=3, temperature=0.7, seed=1)
    """

    def __init__(self, folder: Path, recipe: Recipe, about: Mapping[str, Any]) -> None:
        self.folder, self.recipe, self.about = folder, recipe, about
        self.sealed = about["format"] > 1  # its files have hashes
        self.device = torch.device("cpu")

    @classmethod
    def open(cls, folder: Path | str) -> Run:
        """An existing run; the folder of a pipeline stands for its last stage. Raises RunError if there is none."""
        folder = standing(Path(folder))
        path = folder / "recipe.json"
        if not is_run(folder):
            raise RunError(f"{folder} is not a run: it has no recipe.json{nearest_file(folder)}")
        about = read_object(path, "format", "recipe")
        if about["format"] not in FORMATS:
            other, mine = about.get("sanbu", "unknown"), f"this is version {version('sanbu')}"
            raise RunError(f"{folder} was written by version {other} in another format than 1 to {FORMAT}; {mine}")
        try:
            recipe = load(Recipe, about["recipe"])
        except ConfigError as error:
            raise RunError(f"{path}: {error}") from None
        if about["format"] > 1:
            check_seal(path, about)
            places = {name: os.path.normpath(folder / parent) for name, parent in recipe.parents.items()}
            recipe = recipe.change(parents=places)
        return cls(folder, recipe, about)

    def __repr__(self) -> str:
        last = self.metrics()[-1:]
        facts = [self.recipe.name, *(f"step {row['step']:,}" for row in last)]
        facts += [f"loss {row['loss']:.3f}" for row in last if "loss" in row]
        return f"Run({str(self.folder)!r}, {', '.join(facts)})"

    # -- what was learnt ----------------------------------------------------------------------------------------------

    @cached_property
    def fingerprint(self) -> str | None:
        """The fingerprint of the data when the run began; None for a run that began without data, an import say."""
        if "data" in self.about:
            return str(self.about["data"])
        latest = Writer(self.folder).checkpoints()[-1:]
        return read_object(latest[0] / "state.json", "data")["data"] if latest else None

    @cached_property
    def codec(self) -> Codec:
        """The codec that was saved with the run. Raises RunError if its files are damaged."""
        for name, expected in self.about.get("files", {}).items():
            if file_hash(self.folder / name) != expected:
                raise RunError(f"{self.folder / name} is damaged: it does not match its hash in recipe.json")
        return read_by(self.recipe.objective, self.recipe.data.codec(self.folder))

    @cached_property
    def model(self) -> nn.Module:
        """The trained model, in evaluation mode."""
        path = self.folder / "model.safetensors"
        if not path.exists():
            raise RunError(f"{self.folder} has no weights yet: train it first")
        check_weights(str(self.folder), headers([path]))
        model = self.recipe.model.build(self.recipe.data.space()).eval().requires_grad_(False)
        load_weights(model, read_tensors(path, self.sealed), path)
        return ready_to_draw(model)

    @cached_property
    def models(self) -> dict[str, nn.Module]:
        """The model and its parents, for a strategy."""
        parents = [name for name in self.recipe.parents if name != "model"]
        return {"model": self.model, **{name: self.parent(name).model for name in parents}}

    def parent(self, name: str) -> Run:
        """A parent run: at the path in the recipe, or beside this run, so that runs can be moved together.

        Raises RunError if it has other weights than when this run began.
        """
        path = Path(self.recipe.parents[name])
        beside = self.folder.parent / path.name
        found = Run.open(path if is_run(path) or not beside.exists() else beside)
        expected = self.about.get("parents", {}).get(name)
        if expected and model_hash(found.folder) != expected:
            raise RunError(f"parents.{name}: {found.folder} has other weights than when {self.folder} began")
        return found

    def check_parents(self) -> None:
        """Raise RunError if a parent has other weights than when this run began."""
        for name in self.recipe.parents:
            self.parent(name)

    def finished(self) -> bool:
        """Whether training has ended: finished.json names the latest checkpoint and the model. Older runs have none."""
        about = self.end()
        if not about:
            return False
        latest = [checkpoint.name for checkpoint in Writer(self.folder).checkpoints()[-1:]]
        model = self.folder / "model.safetensors"
        return (
            latest == [about["checkpoint"]]
            and model_hash(self.folder) == about["weights"][model.name]
            and intact(model)
        )

    def end(self) -> dict[str, Any]:
        """What finished.json says: the latest checkpoint, the hashes of metrics and weights. Empty before the end."""
        path = self.folder / "finished.json"
        if not path.exists():
            return {}
        about = read_object(path, "checkpoint", "metrics", "weights")
        check_seal(path, about)
        return about

    def to(self, device: str) -> Run:
        """Move the models to another device; `auto` is the best available one. Returns this run."""
        self.device = find_device(device)
        for model in self.models.values():
            model.to(self.device)
        return self

    def metrics(self) -> list[dict[str, Any]]:
        """Every line of metrics.jsonl; a line cut short by a crash is left out. Raises RunError if it is damaged."""
        path = self.folder / "metrics.jsonl"
        content = path.read_bytes() if path.exists() else b""
        expected = self.end().get("metrics")
        if expected and hashlib.sha256(content).hexdigest() != expected:
            raise RunError(f"{path} is damaged: it does not match its hash in finished.json")
        lines = content.splitlines(keepends=True)
        try:
            return [json.loads(line) for line in lines if line.endswith(b"\n")]
        except ValueError:
            raise RunError(f"{path} is damaged: a line of it does not read as JSON") from None

    # -- samples ------------------------------------------------------------------------------------------------------

    def drawing(self, overrides: Sequence[str] = (), fields: Mapping[str, Any] | None = None) -> Drawing:
        """How this run draws, with changes: overrides as on the command line, fields of the strategy. Checked once."""
        if isinstance(overrides, str):
            raise ConfigError(f"overrides: given the text {overrides!r}; give a list of them, as in [{overrides!r}]")
        recipe = self.recipe.change(*overrides)
        asked = dict(fields or {})
        strategy = asked.pop("strategy", None)
        if strategy is not None:
            recipe = recipe.change(strategy=strategy)
        if asked:
            recipe = recipe.change(strategy=recipe.strategy.changed(asked))
        return Drawing(self, recipe)

    def generate(
        self,
        prompt: Any = None,
        n: int | None = None,
        seed: int = 0,
        *,
        overrides: Sequence[str] = (),
        **fields: Any,
    ) -> Any:
        """Samples as a person reads them: text, or pictures as uint8 arrays [H, W] or [H, W, 3].

        prompt: text to continue, a class label of pictures, or None. A run of chat answers a text, and continues a
        `sanbu.codecs.text.Plain(text)` without its chat template. A list gives one sample for each. n: how many
        samples for each prompt; without it one sample, not in a list. Sample i is drawn with seed + i, alone or in a
        batch. fields: of the strategy, as in temperature=0.7, steps=20 or strategy="beam-search". overrides: texts,
        as on the command line. Raises ConfigError for a field that the strategy lacks, with the nearest match.
        """
        drawing = self.drawing(overrides, fields)
        drawing.recipe.strategy.check_samples(n or 1)
        condition = self.codec.condition(prompt, n or 1, seed)
        results = list(chain.from_iterable(drawing.parts(condition, seed, RESULTS)))
        return results if n is not None or isinstance(prompt, (list, tuple)) else results[0]

    def stream(
        self, prompt: Any = None, seed: int = 0, *, overrides: Sequence[str] = (), **fields: Any
    ) -> Iterator[Any]:
        """One sample as it is drawn: pieces of new text, or the picture after each step. See `generate`."""
        drawing = self.drawing(overrides, fields)
        follower = drawing.follow()
        for _ in drawing.drafts(self.codec.condition(prompt, 1, seed), seed, follower.update):
            piece = follower.pieces[0]
            if len(piece):
                yield piece

    def drafts(
        self,
        prompt: Any = None,
        n: int = 1,
        seed: int = 0,
        watch: Callable[[Draft], Tensor] | None = None,
        *,
        overrides: Sequence[str] = (),
        **fields: Any,
    ) -> Iterator[Draft]:
        """Every draft of n samples for each prompt: tensors, for programs. See `generate`."""
        drawing = self.drawing(overrides, fields)
        drawing.recipe.strategy.check_samples(n)
        yield from drawing.drafts(self.codec.condition(prompt, n, seed), seed, watch)

    def save(
        self,
        folder: Path | str,
        prompt: Any = None,
        n: int = 1,
        seed: int = 0,
        *,
        overrides: Sequence[str] = (),
        **fields: Any,
    ) -> dict[str, str | int]:
        """Draw n samples and write each into a folder, with an overview; returns what was written. See `generate`.

        What an earlier call wrote there is replaced. Raises FileError if the folder holds other pictures.
        """
        drawing, codec, place = self.drawing(overrides, fields), self.codec, Path(folder)
        drawing.recipe.strategy.check_samples(n)
        earlier = written_before(place)
        condition = codec.condition(prompt, n, seed)
        drafts: list[Tensor] = []
        evaluations: list[int] = []

        def watch(draft: Draft) -> None:
            if getattr(codec, "animated", False):
                drafts.append(draft.sample.clone())
            evaluations.append(int(draft.evaluations[0]))

        samples = list(chain.from_iterable(drawing.parts(condition, seed, RESULTS, watch)))

        def write() -> dict[str, str | int]:
            for path in earlier:
                path.unlink()
            frames = [[codec.read(row) for row in sample] for sample in evenly(drafts, FRAMES)]
            return codec.export(samples, place, frames) | {"evaluations": evaluations[-1]}

        return by_first(write)

    # -- beyond the folder --------------------------------------------------------------------------------------------

    def evaluate(self, **options: Any) -> dict[str, Any]:
        """Figures on held-out data, as `sanbu evaluate` gives them; options as in `evaluation.options.Options`."""
        measure = module_of("sanbu.evaluation:ENTRIES", "measure").measure
        found, _ = measure([self], **options)
        return found

    def export(self, to: str, folder: Path | str, **options: Any) -> Path:
        """Write a folder that another library loads; to: huggingface or diffusers. Raises ConfigError otherwise."""
        formats = contents("sanbu.interop:FORMATS")
        if to not in formats:
            raise ConfigError(f"export: given {to!r}, allowed: {', '.join(formats)}{nearest(to, formats)}")
        export = module_of("sanbu.interop:FORMATS", to).export_folder
        allowed = list(inspect.signature(export).parameters)[2:]
        for name in options.keys() - set(allowed):
            raise ConfigError(f"export: {name} is no option of {to}; its options: {', '.join(allowed) or 'none'}")
        return Path(export(self, Path(folder), **options))


@dataclass(frozen=True)
class Drawing:
    """One way to draw from a run, resolved once. recipe: the run's own with the changes that were asked for."""

    run: Run
    recipe: Recipe

    def follow(self) -> Follower:
        """A reader of drafts that turns them into what a person reads, and ends rows at the strategy's stop texts."""
        return self.run.codec.follow(stops_of(self.recipe.strategy))

    def drafts(
        self, condition: Batch, seed: int | Tensor = 0, watch: Callable[[Draft], Tensor] | None = None
    ) -> Iterator[Draft]:
        """Every draft of one sample per row of a condition. seed: of the first row, or one per row."""
        seeds = seed if isinstance(seed, Tensor) else consecutive(seed, row_count(condition))
        strategy = self.recipe.strategy.build(self.recipe.data.space())
        yield from generate(strategy, self.models, condition, seeds, watch)

    def parts(
        self, condition: Batch, seed: int, take: Callable[[Any], T], watch: Callable[[Draft], None] | None = None
    ) -> list[T]:
        """Draw some rows at a time, with progress; what `take` gives of each reader. watch: sees the first part."""
        count = row_count(condition)
        seeds = consecutive(seed, count)
        size = count if self.recipe.strategy.together else self.recipe.strategy.at_once
        with progress_rows("drawing", count) if count > 1 else nullcontext(lambda rows: None) as progress:

            def draw(start: int) -> T:
                rows = {name: tensor[start : start + size] for name, tensor in condition.items()}
                follower = self.follow()
                drafts = self.drafts(rows, seeds[start : start + size], follower.update)
                for draft in with_progress(drafts, lambda done: progress(done * sharers())):
                    if watch is not None and start == 0:
                        watch(draft)
                return take(follower)

            return over_ranks(range(0, count, size), draw)

    @cached_property
    def models(self) -> dict[str, nn.Module]:
        """The run's models, and those of further parents that the changes name, a guide for example."""
        found = dict(self.run.models)
        for name, path in self.recipe.parents.items():
            if path != self.run.recipe.parents.get(name):
                found[name] = Run.open(path).model.to(self.run.device)
        return found
