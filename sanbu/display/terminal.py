"""Text of a model on a terminal: characters that would move the cursor or change its settings are shown as U+FFFD."""

from __future__ import annotations

import sys

NUMBERS = (*range(32), *range(0x7F, 0xA0))
CONTROL = {number: "\N{REPLACEMENT CHARACTER}" for number in NUMBERS if chr(number) not in "\n\t"}


def harmless(text: str) -> str:
    """The text for stdout: unchanged in a file or a pipe."""
    return text.translate(CONTROL) if sys.stdout.isatty() else text
