"""The command line: imports every verb, then runs the one that was asked for."""

from __future__ import annotations

import sys

from sanbu.cli import chat, data, demo, evaluate, exchange, generate, serve, tables, train
from sanbu.cli.app import app
from sanbu.config import SanbuError

VERBS = (
    train,
    generate,
    chat,
    tables,
    evaluate,
    serve,
    exchange,
    demo,
    data,
)  # importing a file adds its verbs to the application


def main() -> None:
    """Run the command line. What a user can fix is one line on standard error, and exit code 2."""
    from typer.exceptions import Abort, Exit, TyperException

    try:
        status = app(standalone_mode=False) or 0
    except Exit as error:
        status = error.exit_code
    except TyperException as error:
        status = fail(error.format_message())
    except SanbuError as error:
        status = fail(str(error)) if getattr(error, "speaks", True) else 2
    except OSError as error:
        status = fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except (KeyboardInterrupt, Abort):
        status = 130
    except Exception as error:  # a fault of ours: one line, and a report to send
        status = fail(unexpected(error))
    sys.exit(status)


def unexpected(error: Exception) -> str:
    """Write the traceback into a file; returns one line that names it. Errors of memory need no report."""
    import shlex
    import tempfile
    import traceback
    from importlib.metadata import version

    from sanbu.memory.parts import ran_out

    text = " ".join(str(error).split())[:160]
    if ran_out(error):
        return f"not enough memory ({text}); use smaller sizes: model, batch, context, number of samples"
    with tempfile.NamedTemporaryFile("w", prefix="sanbu-report-", suffix=".txt", delete=False) as file:
        file.write(f"sanbu {version('sanbu')}, Python {sys.version}\n{shlex.join(sys.argv)}\n\n")
        file.write("".join(traceback.format_exception(error)))
    return f"unexpected {type(error).__name__}: {text}; this is a fault of sanbu, please report it with {file.name}"


def fail(line: str) -> int:
    """Print what is wrong in one line; returns the exit code."""
    print("sanbu: " + " ".join(line.split()), file=sys.stderr)
    return 2
