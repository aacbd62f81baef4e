"""Random `sanbu` command lines: every command, its options, fields of recipes, and values that are often wrong.

`python -m tests.e2e.generated_lines 5000` runs that many, prints those that are not answered well, and the share.
"""

import random
import shlex
import sys
import tempfile
from pathlib import Path

from sanbu import recipes
from sanbu.cli.main import app
from sanbu.config import contents
from sanbu.recipe import walk
from tests.e2e.command_lines import SMALL, Answer, answer, furnish, names

VALUES = [
    "0", "1", "2", "3", "-1", "0.5", "1.5", "1e308", "-1e308", "1e-320", "NaN", "Infinity", "-Infinity", "1_0", "0x10",
    str(2**31), str(2**53 + 1), str(2**63), "1" + "0" * 30, "9" * 5000, "", " ", "x", "none", "null", "true", "false",
    "[]", "[1]", "[1,2]", "[[1]]", "[" * 3000, "{}", '{"kind":"nope"}', '{"kind":["x"]}', '{"kind":3}', '"text"', "²",
    "☃", "\udcff\udcfe", "a\nb", "\x1b[31m", "a" * 300, "auto", "byte", "adamw", "digits", "skills", "cpu", "cuda",
    "float16", "..", "/", "~", "/dev/null", "/nowhere/file", "../x", "text.txt", "empty.txt", "folder", "nonempty",
    "pairs.jsonl", "deep.jsonl", "bomb.png", "runs/text", "runs/flow", "runs/gan", "runs/sft", "runs/reward",
    "runs/base",
]  # fmt: skip
LONG = {"serve", "demo", "compare"}  # they run until they are interrupted, or for minutes
PLACES = {"generate": "--out o", "export": "--out o", "import": "--run new", "merge": "--out o", "average": "--out o"}
SMALLEST = ["--run", "new"]


def commands():
    """Each command with its parameters, from the command line itself."""
    import typer

    return {name: made.params for name, made in typer.main.get_command(app).commands.items() if name not in LONG}


def field(chance, name):
    """An assignment to some field of a recipe, misspelt at times."""
    path = chance.choice([path for path, *_ in walk(recipes.find(name)())])
    if chance.random() < 0.1:
        cut = chance.randrange(len(path))
        path = path[:cut] + path[cut + 1 :]
    return f"{path}={chance.choice(VALUES)}"


def make_line(chance, known):
    """The words of one command line."""
    name = chance.choice(sorted(known))
    runs = ["runs/text", "runs/flow", "runs/gan", "runs/sft", "runs/reward", "runs/base"]
    small = [recipe for recipe in SMALL if recipe in contents("sanbu.recipes:RECIPES")]
    subject = chance.choice([*runs, *small, chance.choice(VALUES)])
    words = [name, subject] if chance.random() < 0.95 else [name]
    if name == "train":
        words += [*SMALL.get(subject, []), *SMALLEST]
        if subject in ("gpt2", "base"):
            words.append("data.path=text.txt" if subject == "gpt2" else "path=text.txt")
    elif name in PLACES and chance.random() < 0.9:
        words += PLACES[name].split()
    if name == "rank":
        words += ["--out", "o.jsonl", "--questions", "2"]
    for _ in range(chance.choice([0, 1, 1, 1, 2, 3])):
        option = chance.choice([each for each in known[name] if each.param_type_name == "option"] or [None])
        if option is not None and option.name != "help":
            words.append(chance.choice(option.opts))
            words += [] if getattr(option, "is_flag", False) else [chance.choice(VALUES)]
    for _ in range(chance.choice([0, 0, 1, 1, 2])):
        words.append(field(chance, chance.choice(small)))
    return words


def well(found: Answer) -> bool:
    """Done, or refused in one line; heard in time when it was interrupted."""
    return found.code == 0 or (found.code == 130 and not found.left) or found.well()


def main(count: int, seed: int) -> None:
    known, bad = commands(), 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "place"
        place.mkdir()
        furnish(place)
        before = names(place)
        for number in range(seed, seed + count):
            words = make_line(random.Random(number), known)
            found = answer(place, words, before)
            if not well(found):
                bad += 1
                print(number, shlex.join(words)[:300].encode("unicode_escape").decode(), found.code, found.left)
                print("    ", found.error[-300:].encode("unicode_escape").decode(), flush=True)
    print(f"{count - bad} of {count} answered well: {(count - bad) / count:.2%}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
