"""The command line in a process of its own, forked from one that has imported torch: 0.2 s instead of 3 s."""

import multiprocessing
import os
import subprocess
import sys
import tempfile
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["torch", "sanbu.cli.main", "sanbu.loop", "sanbu.recipes", "sanbu.evaluation.text"])
THREADS = {"OMP_NUM_THREADS": "1"}


def sanbu(*arguments, cwd=None, given=None, **environment):
    """Run `sanbu` with these arguments; returns a CompletedProcess with its texts. given: on standard input."""
    words = ["sanbu", *map(str, arguments)]
    kept = {**os.environ, **THREADS, "COLUMNS": "200", **environment}
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder, name) for name in ("in", "out", "err")]
        files[0].write_text(given or "", encoding="utf-8")
        os.environ |= THREADS  # the first call starts the process that all are forked from
        process = CONTEXT.Process(target=run, args=(words, str(cwd or os.getcwd()), kept, files))
        process.start()
        process.join(240)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(words, 240)
        out, err = (file.read_text(encoding="utf-8") for file in files[1:])
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def run(words, folder, environment, files):
    """In the child: replace the three standard streams by files, then run `sanbu`."""
    writing = os.O_CREAT | os.O_WRONLY
    for number, (file, how) in enumerate(zip(files, (os.O_RDONLY, writing, writing), strict=True)):
        os.dup2(os.open(file, how), number)
    sys.stdin, sys.stdout, sys.stderr = (
        os.fdopen(number, mode, encoding="utf-8") for number, mode in enumerate(("r", "w", "w"))
    )
    sys.argv = words
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    from sanbu.cli.main import main

    main()
