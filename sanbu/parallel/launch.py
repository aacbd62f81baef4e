"""Processes for a layout on this machine, started by the agent of torchrun; on a cluster torchrun or SLURM starts them.

An interrupt is passed on to every process, which saves and stops. When a process dies the agent starts all of them
again, and the run goes on from its last checkpoint.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sanbu.config import Config, SanbuError, dump
from sanbu.progress import SIGNALS, in_main_thread

RESTARTS = 3  # of all processes, after one has died


def in_job() -> bool:
    """Whether torchrun started this process together with others."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks() -> bool:
    """Whether this process prints the result of a job: the first, or one that is alone."""
    return int(os.environ.get("RANK", "0")) == 0


class LaunchError(SanbuError):
    """The processes of a job did not end well."""


def launch(recipe: Config, folder: Path, resume: bool, processes: int, silent: bool = False) -> None:
    """Train a recipe into a folder in so many processes. Raises LaunchError with what the first of them says."""
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    with heard_by_agent(), tempfile.TemporaryDirectory() as temporary:
        asked = Path(temporary) / "asked.json"
        asked.write_text(
            json.dumps({"recipe": dump(recipe), "folder": str(folder), "resume": resume, "silent": silent})
        )
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=processes,
            run_id=folder.name,
            rdzv_backend="c10d",
            rdzv_endpoint="localhost:0",
            max_restarts=RESTARTS,
            monitor_interval=0.2,
        )
        try:
            elastic_launch(config, sys.executable)("-u", "-m", "sanbu.cli.worker", str(asked))
        except SignalException:
            return  # every process has saved and stopped
        except ChildFailedError as error:
            said = asked.with_name("error.txt")
            rank, failure = error.get_first_failure()
            reason = f"rank {rank} ended with exit code {failure.exitcode}, {RESTARTS + 1} times"
            raise LaunchError(said.read_text() if said.exists() else reason) from None


@contextmanager
def heard_by_agent() -> Iterator[None]:
    """Inside, the agent may take the signals; it neither gives them back nor speaks."""
    handlers = {number: signal.getsignal(number) for number in SIGNALS}
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        if in_main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)
