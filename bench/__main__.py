"""Every bench, one after another, in about 40 minutes: python -m bench [--only text.train] [--json] [--tables]

Each part runs in a process of its own. The figures go into bench/figures.json, each with the machine and the day, and
the tables of docs/benchmarks.md are made from them. A part that fails keeps its older figures, and is named at the end.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from bench import pages
from sanbu.progress import duration

PARTS = {  # part -> its options
    "text.train": [], "text.generate": [], "text.chunked": [], "text.shards": [], "text.shakespeare": [],
    "images.unet": [], "images.dit": [], "images.import": [], "images.pixelcnn": [],
    "alignment.sft": ["--rounds", "1"], "alignment.dpo": ["--rounds", "1"], "alignment.grpo": ["--rounds", "1"],
    "optimizers.muon": [],
    "service.continuous": [], "service.prefix": [], "service.clients": ["--rounds", "1"], "service.overhead": [],
}  # fmt: skip


def measure(part: str) -> dict[str, Any]:
    """The figures of one part. Raises CalledProcessError if it fails."""
    name, _, which = part.partition(".")
    command = [sys.executable, "-m", f"bench.{name}", "--part", which, *PARTS[part], "--json"]
    output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(json.loads(output.splitlines()[-1]))


def machine() -> str:
    """The processor and its cores."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", help="a part, or all parts of a bench; may be repeated")
    parser.add_argument("--tables", action="store_true", help="only make the tables from the figures that there are")
    parser.add_argument("--json", action="store_true", help="print the figures on standard output")
    given = parser.parse_args()
    chosen = [part for part in PARTS if not given.only or {part, part.partition(".")[0]} & set(given.only)]
    if not chosen:
        parser.error(f"--only: given {', '.join(given.only)}; allowed: {', '.join(PARTS)}")
    figures, failed = pages.read(), []
    for part in [] if given.tables else chosen:
        begun = time.monotonic()
        print(f"{part}:", file=sys.stderr, flush=True)
        try:
            found = measure(part)
        except (subprocess.CalledProcessError, ValueError, IndexError) as error:
            print(f"{part} failed: {error}", file=sys.stderr)
            failed.append(part)
            continue
        figures |= found | {f"{part}: when": f"{date.today()}, {machine()}"}
        pages.FIGURES.write_text(json.dumps(figures, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        print(f"{part} took {duration(time.monotonic() - begun)}", file=sys.stderr)
    pages.write(figures)
    if given.json:
        print(json.dumps(figures))
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
