"""The built-in questions: ten tasks, greetings, what is outside of them, and conversations of several turns.

Every question is a pure function of its number. Held-out questions are chosen by a hash of their text, and those in a
conversation by its first question, so a question that is held out in one stage of the assistant pipeline is held out in
all of them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from sanbu.data.builtin import tasks
from sanbu.data.builtin.follow_ups import dialogue
from sanbu.data.builtin.outside import UNKNOWN, outside
from sanbu.data.builtin.question import Draws, Question, sentence

GREETINGS = ("Hello", "Hi", "Hey", "Good morning", "Good evening", "Hello there", "Hi there", "Greetings", "Good day")
HELPS = ("What can you do?", "What do you know?", "Who are you?", "Help", "What can I ask?", "Help me, please.")
WELCOME = "Hello! Ask me about numbers, lists, letters or Python."


def greeting(draws: Draws) -> Question:
    """A greeting or a question for help; the answer says what to ask."""
    said = draws.choose(GREETINGS) + draws.choose((", assistant", "", "", " to you", " again"))
    text = draws.choose(HELPS) if draws.below(4) == 0 else said + draws.choose((".", "!", "", "?"))
    return Question(text, WELCOME, (UNKNOWN, sentence("hello")), "greeting")


Skill = Callable[[Draws], Question]
SKILLS: tuple[Skill, ...] = (
    *tasks.TASKS, dialogue, dialogue, outside, dialogue, dialogue, tasks.maximum, dialogue, dialogue, greeting,
    dialogue, dialogue, tasks.counting, dialogue, dialogue, tasks.minimum, outside,
)  # fmt: skip


def question(number: int) -> Question:
    """The question of a number; skills alternate."""
    return SKILLS[number % len(SKILLS)](Draws(number))


@lru_cache
def questions() -> tuple[Question, ...]:
    """The questions of the built-in data, in equal shares per entry of SKILLS; small skills repeat some."""
    return tuple(question(number) for number in range(COUNT))


@lru_cache
def by_text() -> dict[str, Question]:
    """The questions of the built-in data that stand alone, by their text."""
    return {found.text: found for found in questions() if not found.before}


COUNT = 40_500
PREAMBLES = ("Well, let me see. ", "That is a good question. ", "Let me think. ", "I am glad you ask. ")


def demonstration(found: Question, draws: Draws) -> str:
    """An answer to imitate: right and short in 66% of all draws, rambling in 30%, a near miss in 4%.

    This models demonstrations by people. Imitation learns the whole mixture; preferences tell which part is wanted.
    """
    chance = draws.below(100)
    if chance < 66:
        return found.answer
    return ramble(found, draws) if chance < 96 else near_miss(found, draws)


def ramble(found: Question, draws: Draws) -> str:
    """The right answer after an empty preamble."""
    return draws.choose(PREAMBLES) + found.answer


def maybe_ramble(answer: str, draws: Draws) -> str:
    """The answer, in half of all draws after a preamble, so that preambles do not mark right answers."""
    return draws.choose(PREAMBLES) + answer if draws.below(2) else answer


def other_answer(found: Question, draws: Draws) -> str:
    """The right answer to another question."""
    other = question(draws.below(COUNT))
    return other.answer if other.answer != found.answer else sentence("something else")


def near_miss(found: Question, draws: Draws) -> str:
    """One of the near misses of a question."""
    return draws.choose(found.near)
