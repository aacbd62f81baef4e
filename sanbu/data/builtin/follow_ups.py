"""Conversations of two to five turns: questions that refer to the turn before, and questions that do not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

from sanbu.data.builtin.outside import UNKNOWN, outside
from sanbu.data.builtin.question import Draws, Question, held_out, occurrences, running, sentence, worked
from sanbu.data.builtin.tasks import LARGEST, LETTERS, ORDINALS, TASKS, counting, item, maximum

ROOM = 130  # characters of a conversation: it must fit into the context of the nano recipes
TURNS = 5  # of a conversation at most
DOUBLED = 9  # largest number that is doubled
ASKED = "You asked: "
THANKS = ("Thank you.", "Thanks!", "Thank you very much.", "Thanks a lot.")
PLUS = ("And plus {}?", "Plus {}?", "And if I add {}?", "Now add {}.")
MINUS = ("And minus {}?", "Minus {}?", "And if I take away {}?", "Now subtract {}.")
TWICE = ("And times 2?", "Times 2?", "And twice that?", "Now double it.")
BACKWARDS = ("And backwards?", "Backwards?", "Now reverse it.", "And in reverse?")
ENDS = ("And the {}?", "The {}?", "And what is the {}?")
AGAIN = ("What did I ask?", "What was my question?", "Repeat my question.")


def dialogue(draws: Draws) -> Question:
    """The last question of a conversation that fits into ROOM: two turns, and each further one in half of the cases."""
    found = follow(draws, draws.choose(STARTS)(draws))
    while size(found) > ROOM:
        found = follow(draws, draws.choose(STARTS)(draws))
    while len(found.before) + 1 < TURNS and draws.below(2):
        longer = follow(draws, found)
        if size(longer) > ROOM:
            break
        found = longer
    return found


def follow(draws: Draws, earlier: Question) -> Question:
    """One more question: where the turn before has something to refer to, it does in two of three cases."""
    kinds = references(earlier)
    plain = (thanks,) if earlier.before or earlier.skill == "outside" else (thanks, again)
    chosen = draws.choose((*kinds, *kinds, *kinds, *kinds, *plain))
    made = chosen(draws, earlier) if draws.below(6) < (4 if kinds else 1) else alone(draws, earlier.first)
    near = tuple(answer for answer in made.near if answer != made.answer) or (sentence("something else"),)
    return replace(made, near=near, before=(*earlier.before, (earlier.text, earlier.answer)))


def alone(draws: Draws, first: str) -> Question:
    """A question that stands alone, held out where the first question of the conversation is held out."""
    while True:
        found = draws.choose(STARTS)(draws)
        if held_out(found.text) == held_out(first):
            return found


def references(earlier: Question) -> tuple[Reference, ...]:
    """The questions that one can ask about the turn before."""
    kinds = REFERENCES.get(earlier.skill, ())
    if 0 <= value_of(earlier.answer) <= LARGEST:
        kinds = (*kinds, calculate)
    if re.fullmatch(r"It is \w+(?: \w+)+\.", earlier.answer):
        kinds = (*kinds, pick, reverse, reverse)
    return kinds


def size(found: Question) -> int:
    """The characters of a conversation with its last answer."""
    before = sum(len(text) for turn in found.before for text in turn)
    return before + len(found.text) + len(found.answer)


# -- what refers to the turn before -----------------------------------------------------------------------------------


def calculate(draws: Draws, earlier: Question) -> Question:
    """One more step from the last number."""
    value, b = value_of(earlier.answer), 1 + draws.below(9)
    possible = (PLUS, *((MINUS,) if value >= b else ()), *((TWICE,) if value <= DOUBLED else ()))
    wordings = draws.choose(possible)
    text = draws.choose(wordings).format(b)
    steps = {PLUS: b, MINUS: -b, TWICE: value}[wordings]
    return worked(value, steps, "calculate", text)


def value_of(answer: str) -> int:
    """The number that an answer ends with; -1 for an answer without."""
    number = re.fullmatch(r"(?:[\w ]+\. )?It is (\d+)\.", answer)
    return int(number[1]) if number else -1


def reverse(draws: Draws, earlier: Question) -> Question:
    """The last list backwards, item by item."""
    values = earlier.answer[len("It is ") : -1].split()
    near = (earlier.answer, sentence(" ".join(values[:0:-1])))
    right = sentence(" ".join(values[::-1]))
    return Question(draws.choose(BACKWARDS), right, tuple(n for n in near if n != right), "reverse")


def pick(draws: Draws, earlier: Question) -> Question:
    """The first or the last of the last list."""
    values = earlier.answer[len("It is ") : -1].split()
    ends = (("first", values[0], values[-1]), ("last", values[-1], values[0]))
    word, right, wrong = draws.choose(ends)
    other = wrong if wrong != right else values[1]
    near = (sentence(other),) if other != right else (UNKNOWN,)
    return Question(draws.choose(ENDS).format(word), sentence(right), near, "pick")


def smallest(draws: Draws, earlier: Question) -> Question:
    """The smallest of the numbers whose largest was asked for."""
    values = [int(value) for value in re.findall(r"\d+", earlier.text)]
    return running(values, min, "smallest", draws.choose(ENDS).format("smallest"))


def other_place(draws: Draws, earlier: Question) -> Question:
    """Another place of the same letters."""
    letters = earlier.text.rstrip("?").split(" of ")[1].split()
    place = draws.below(len(letters))
    places = [i for i in (place - 1, place + 1) if 0 <= i < len(letters)]
    near = tuple(sentence(letters[i]) for i in places)
    return Question(draws.choose(ENDS).format(ORDINALS[place]), sentence(letters[place]), near, "other_place")


def other_letter(draws: Draws, earlier: Question) -> Question:
    """How often another letter occurs."""
    letters = earlier.text.rstrip("?").split(" in ")[1].split()
    wanted = LETTERS[draws.below(3)]
    text = draws.choose(("And {}?", "And how often is {}?", "How often is {}?")).format(wanted)
    return occurrences(wanted, letters, "other_letter", text)


def again(draws: Draws, earlier: Question) -> Question:
    """What was asked."""
    return Question(draws.choose(AGAIN), ASKED + earlier.text, (UNKNOWN, ASKED + "What is 1 + 1?"), "again")


def thanks(draws: Draws, earlier: Question) -> Question:
    """Thanks, which need no computed answer."""
    return Question(draws.choose(THANKS), "You are welcome.", (UNKNOWN, earlier.answer), "thanks")


Reference = Callable[[Draws, Question], Question]
REFERENCES: dict[str, tuple[Reference, ...]] = {
    "maximum": (smallest, smallest),
    "item": (other_place,),
    "counting": (other_letter,),
}
STARTS = (*TASKS, *TASKS, outside, outside, outside, item, item, maximum, maximum, counting, counting)
