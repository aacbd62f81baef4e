"""One process of a job: python -m sanbu.cli.worker ASKED, started by `sanbu.parallel.launch`.

ASKED is a JSON file with the recipe, the run folder, whether to resume, and whether to be silent. A process that is
started again goes on from the last checkpoint. An error that the user can mend is written beside ASKED; then nothing is
started again.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from sanbu.config import SanbuError, load


def main(asked: Path) -> int:
    """Train; the exit code."""
    said = asked.with_name("error.txt")
    if said.exists():
        return 2
    from sanbu.checkpoints import is_run
    from sanbu.files import write_text
    from sanbu.loop import train
    from sanbu.parallel.lost import Lost
    from sanbu.recipe import Recipe

    values = json.loads(asked.read_text())
    folder, count = Path(values["folder"]), int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
    rank = int(os.environ.get("RANK", "0"))
    if count and not rank:
        print(f"a process died; all start again from the last checkpoint of {folder} ({count})", file=sys.stderr)
    try:
        resume = values["resume"] or (count > 0 and is_run(folder))
        train(load(Recipe, values["recipe"]), folder, resume=resume, watchers=[] if values["silent"] else None)
    except Lost as lost:
        if lost.speaks:
            print(lost, file=sys.stderr)
        return 3
    except SanbuError as error:
        if not said.exists():
            write_text(said, str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
