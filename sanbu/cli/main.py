"""The command line: imports every verb, then runs the one that was asked for."""

from __future__ import annotations

import sys

from sanbu.cli import chat, demo, evaluate, exchange, generate, serve, train
from sanbu.cli.app import app
from sanbu.config import SanbuError

VERBS = (train, generate, chat, evaluate, serve, exchange, demo)  # importing a file adds its verbs to the application


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
        status = fail(str(error))
    except OSError as error:
        status = fail(f"{error.filename or 'a file'}: {error.strerror or error}")
    except (KeyboardInterrupt, Abort):
        status = 130
    sys.exit(status)


def fail(line: str) -> int:
    """Print what is wrong in one line; returns the exit code."""
    print("sanbu: " + " ".join(line.split()), file=sys.stderr)
    return 2
