"""The metrics of a run as TensorBoard event files (extra `tensorboard`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sanbu.config import SanbuError
from sanbu.watcher import Watcher

if TYPE_CHECKING:
    from sanbu.run import Run
    from sanbu.training import Training


class TensorBoard(Watcher):
    """Writes every number of every step, and text samples. Raises SanbuError where the extra is missing."""

    def __init__(self) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise SanbuError("--tensorboard needs the extra: pip install 'sanbu[tensorboard]'") from None
        self.make: Any = SummaryWriter
        self.writer: Any = None

    def begin(self, run: Run, training: Training) -> None:
        self.writer = self.make(str(run.folder / "tensorboard"), purge_step=training.step)
        self.at = 0

    def step(self, row: Mapping[str, Any]) -> str | None:
        self.at = row["step"]
        for name, value in row.items():
            if name != "step":
                self.writer.add_scalar(name, value, self.at)
        return None

    def sample(self, path: Path, results: Sequence[Any]) -> None:
        for index, result in enumerate(results):
            if isinstance(result, str):
                self.writer.add_text(f"sample/{index}", result, self.at)

    def close(self) -> None:
        if self.writer is not None:
            self.writer.close()
