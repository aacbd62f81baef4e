"""What a model writes cannot command a terminal."""

import os
import pty
import subprocess
import sys

from sanbu.cli import talk
from sanbu.display.terminal import harmless

TEXT = "a\x1b[2J\x9b31m\x07\rb\n\té大🙂"
CODE = f"from sanbu.display.terminal import harmless; print(harmless({TEXT!r}), end='')"


def test_text_is_unchanged_in_a_pipe_and_harmless_on_a_terminal():
    piped = subprocess.run([sys.executable, "-c", CODE], capture_output=True, encoding="utf-8", check=True)
    assert piped.stdout == TEXT.replace("\r", "\n")  # as Python reads line ends
    read, write = pty.openpty()
    subprocess.run([sys.executable, "-c", CODE], stdout=write, check=True)
    os.close(write)
    seen = os.read(read, 4096).decode("utf-8").replace("\r\n", "\n")
    os.close(read)
    assert seen == "a\ufffd[2J\ufffd31m\ufffd\ufffdb\n\té大🙂"


class Speaker:
    name = "x"

    def answer(self, words, seed):
        yield from ("a\x1b", "[2J\x9b", "b")


def test_answers_are_shown_harmless_and_returned_whole(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert talk.answer_all([Speaker()], "x", 0) == ["a\x1b[2J\x9bb"]
    assert capsys.readouterr().out == "a\ufffd[2J\ufffdb\n"
    assert harmless("\x7f") == "\ufffd"
