"""Memory by part, the refusal of what does not fit, and the one line for memory that ran out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from sanbu.config import SanbuError

SIGNS = ("allocate memory", "out of memory", "not enough memory", "bad_alloc", "bad allocation")
LIBRARIES = 100_000_000  # bytes of code and tables that are loaded with the first step
SLACK = 0.85  # the activations are known within 15 percent; only what is certain not to fit is refused


@dataclass(frozen=True)
class Parts:
    """Bytes taken at once. activations: also temporary tensors and what the allocator wastes; None: not counted."""

    weights: int
    gradients: int = 0
    optimizer: int = 0
    activations: int | None = 0
    cache: int = 0

    @property
    def kept(self) -> int:
        """What stays from the first step to the last; counted exactly."""
        return self.weights + self.gradients + self.optimizer + self.cache

    @property
    def total(self) -> int:
        """Everything, with the libraries that training loads."""
        return self.kept + (self.activations or 0) + (LIBRARIES if self.gradients else 0)

    @property
    def least(self) -> int:
        """What is taken for certain."""
        return self.kept + round(SLACK * (self.activations or 0))

    def describe(self) -> str:
        """The total and its parts, in one phrase."""
        names = [name for name in ("weights", "gradients", "optimizer", "cache", "activations") if getattr(self, name)]
        listed = ", ".join(f"{name} {size(getattr(self, name))}" for name in names)
        unknown = "; activations not counted" if self.activations is None else ""
        return f"{size(self.total)} ({listed}{unknown})"


class TooLarge(SanbuError):
    """What was asked for does not fit into memory. room: bytes that are left. advice: the nearest thing that fits."""

    def __init__(self, name: str, need: Parts, room: int, advice: str = "", owner: str = "this machine") -> None:
        self.name, self.need, self.room, self.advice = name, need, room, advice
        end = f"; {advice}" if advice else ""
        super().__init__(f"{name} needs about {need.describe()}, and {owner} has {size(room)} left{end}")


def size(count: float) -> str:
    """Bytes as a person reads them: 312 MB, 2.5 GB, 2,794 GB."""
    if count < 1e9:
        return f"{count / 1e6:.0f} MB"
    return f"{count / 1e9:,.1f} GB" if count < 1e11 else f"{count / 1e9:,.0f} GB"


def ran_out(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the machine or of a device."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in SIGNS)


@contextmanager
def told_in_one_line(what: Callable[[], str]) -> Iterator[None]:
    """Turn memory that ran out into a SanbuError. what: the line, composed after the error."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not ran_out(error):
            raise
        error.__traceback__ = None  # it holds the tensors
        line = what()
    else:
        return
    raise SanbuError(line)
