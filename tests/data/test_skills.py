"""The built-in questions: every answer recomputed from the text alone, held-out wordings, and what is taught."""

import keyword
import re

import pytest

from sanbu.codecs.chat import ChatCodec, Turns
from sanbu.codecs.tokenizer import Byte
from sanbu.data.builtin import skills
from sanbu.data.builtin.follow_ups import ROOM, THANKS, size
from sanbu.data.builtin.outside import UNKNOWN, read_wordings
from sanbu.data.builtin.question import Draws, held_out
from sanbu.data.builtin.tasks import facts
from sanbu.data.chat import Prompts
from sanbu.data.conversations import records, skill_record

ORDER = ("first", "second", "third", "fourth", "fifth")
ASKED = [skills.question(number) for number in range(6000)]


def steps(start, count):
    """Counting from a number, and where it ends."""
    way = range(start + 1, start + count + 1) if count > 0 else range(start - 1, start + count - 1, -1)
    return f"{' '.join(map(str, way))}. It is {start + count}.".removeprefix(". ")


def written(letter, letters):
    """A letter as often as it occurs, and how often."""
    found = [each for each in letters if each == letter]
    return f"{' '.join(found)}. It is {len(found)}.".removeprefix(". ")


def best(choose, numbers):
    """Each number after the first with the best so far, and the best of all."""
    said = numbers[0]
    for end in range(1, len(numbers)):
        said += f" {numbers[end]} {choose(map(int, numbers[: end + 1]))}"
    return f"{said}. It is {choose(map(int, numbers))}."


def solve(text, before):
    """The answer by other means than the generator; None for what is not taught. Reads questions, not skills."""
    earlier, said = before[-1] if before else ("", "")
    value = said.rpartition("It is ")[2].rstrip(".")
    if found := re.fullmatch(r"What is (\d\d?) ([+-]) (\d)\?", text):
        a, sign, b = found.groups()
        if int(a) > 50:
            return None
        return steps(int(a), int(sign + b))
    if found := re.fullmatch(r"How often is (\w) in ([a-c ]+)\?", text):
        return written(found[1], found[2])
    if found := re.fullmatch(r"What is the (largest|smallest) of ([\d ]+)\?", text):
        return best({"largest": max, "smallest": min}[found[1]], found[2].split())
    if found := re.fullmatch(r"Repeat ((?:[a-z] )+[a-z])\.", text):
        return f"It is {found[1]}."
    if found := re.fullmatch(r"What is ([a-z ]+) backwards\?", text):
        return f"It is {found[1][::-1]}."
    if found := re.fullmatch(r"What is ([\d ]+) in order\?", text):
        return f"It is {' '.join(sorted(found[1].split()))}."
    if found := re.fullmatch(rf"What is the ({'|'.join(ORDER)}) of ([a-z](?: [a-z])*)\?", text):
        return f"It is {found[2].split()[ORDER.index(found[1])]}."
    for wording in ("Is {} a keyword?", "Is {} a keyword of Python?", "Does Python reserve the word {}?",
                    "Tell me if {} is a keyword."):  # fmt: skip
        if found := re.fullmatch(re.escape(wording).replace(r"\{\}", r"(\w+)"), text):
            return f"{found[1]} is{'' if keyword.iskeyword(found[1]) else ' not'} a keyword."
    for name, line in facts():
        if re.search(rf"(^| ){re.escape(name)}( |\.$)", text):
            return line
    if text in (*THANKS,):
        return "You are welcome."
    if before and text in ("What did I ask?", "What was my question?", "Repeat my question."):
        return f"You asked: {earlier}"
    if before and (found := re.fullmatch(r"(?:And plus|Plus|And if I add|Now add) (\d)[.?]", text)):
        return steps(int(value), int(found[1]))
    if before and (found := re.fullmatch(r"(?:And minus|Minus|And if I take away|Now subtract) (\d)[.?]", text)):
        return steps(int(value), -int(found[1]))
    if before and text in ("And times 2?", "Times 2?", "And twice that?", "Now double it."):
        return steps(int(value), int(value))
    if before and text in ("And backwards?", "Backwards?", "Now reverse it.", "And in reverse?"):
        return f"It is {' '.join(reversed(value.split()))}."
    if before and (found := re.fullmatch(r"(?:And the|The|And what is the) (\w+)\?", text)):
        if found[1] == "smallest":
            return best(min, re.findall(r"[0-9]+", earlier))
        if found[1] in ORDER and " of " in earlier:
            return f"It is {earlier.split(' of ')[1].rstrip('?').split()[ORDER.index(found[1])]}."
        return f"It is {value.split()[0 if found[1] == 'first' else -1]}."
    if before and (found := re.fullmatch(r"(?:And|And how often is|How often is) (\w)\?", text)):
        return written(found[1], earlier.split(" in ")[1])
    return None


def test_every_answer_is_right():
    for found in ASKED:
        turns = [*found.before, (found.text, found.answer)]
        for number, (text, answer) in enumerate(turns):
            right = solve(text, turns[:number])
            if right is None:
                assert answer in (UNKNOWN, skills.WELCOME), (text, answer)
            else:
                assert answer.removeprefix("Yes, ").removeprefix("No, ") == right, (turns[:number], text, answer, right)
                assert not right.endswith(" keyword.") or answer.startswith("No") == (" is not a " in right)
        assert found.near and found.answer not in found.near


def test_greetings_alone_are_welcomed():
    answers = {found.answer for found in ASKED if found.skill == "greeting"}
    assert answers == {skills.WELCOME}
    assert all(found.skill == "greeting" for found in ASKED if found.answer == skills.WELCOME)
    assert all(found.answer == UNKNOWN for found in ASKED if found.skill == "outside")


def test_held_out_wordings_and_words_are_never_trained_on():
    """No word of the reserved part stands in a question for training."""
    trained, reserved = read_wordings("trained"), read_wordings("reserved")
    assert not set(trained.world) & set(reserved.world) and not set(trained.languages) & set(reserved.languages)
    outside = {found.text for found in ASKED if found.skill == "outside"}
    for gap, words in reserved.words.items():
        assert not set(words) & set(trained.words[gap])
        for word in words:
            inside = [text for text in outside if re.search(rf"\b{word}\b", text)]
            assert all(map(held_out, inside)), (word, inside)
    held = [text for text in outside if held_out(text)]
    assert 0.03 < len(held) / len(outside) < 0.08 and len(outside) > 0.8 * sum(f.skill == "outside" for f in ASKED)


def test_no_conversation_shows_a_held_out_question_in_training():
    data = Prompts(tokenizer=Byte(), context=512, answer=48).build()
    shown = {message["content"] for record in data.train for message in record.prompt if message["role"] == "user"}
    first = {record.prompt[0]["content"] for record in data.held_out_records}
    assert not shown & first
    alone = {record.prompt[-1]["content"] for record in data.held_out_records if len(record.prompt) == 1}
    assert not shown & alone and len(alone) > 500
    later = [record for record in data.held_out_records if len(record.prompt) > 1]
    assert 0.2 < len(later) / len(data.held_out_records) < 0.4


def test_all_answers_of_a_conversation_are_taught():
    """Each answer and its end token, and nothing else."""
    number = next(n for n in range(6000) if len(ASKED[n].before) == 2)
    record, found = skill_record(number), ASKED[number]
    codec = ChatCodec(Byte().build(()), Turns())
    ids, taught = codec.template.render([*record.prompt, {"role": "assistant", "content": found.answer}])
    said = [bytes(i for i, learn in zip(ids, taught, strict=True) if learn and i < 256).decode()]
    answers = [answer for _, answer in found.before] + [found.answer]
    assert said[0].split() == " ".join(answers).split()
    assert sum(taught) == sum(len(f" {answer}".encode()) + 1 for answer in answers)


@pytest.mark.parametrize("turns", [2, 3, 4])
def test_conversations_are_short_and_refer_to_what_was_said(turns):
    longer = [found for found in ASKED if len(found.before) == turns - 1]
    assert len(longer) > 50 and max(map(size, longer)) <= ROOM
    refer = [found for found in longer if found.skill in ("calculate", "reverse", "pick", "smallest", "again",
             "other_place", "other_letter")]  # fmt: skip
    assert len(refer) > 0.3 * len(longer)


def test_the_share_of_demonstrations():
    kinds = {"right": 0, "rambling": 0, "wrong": 0}
    for number in range(4000):
        found, said = ASKED[number], skills.demonstration(ASKED[number], Draws(number, "answers"))
        kinds["right" if said == found.answer else "rambling" if said.endswith(found.answer) else "wrong"] += 1
    assert kinds["right"] == pytest.approx(2640, abs=90) and kinds["rambling"] == pytest.approx(1200, abs=90)


def test_the_records_are_made_once():
    assert next(iter(records("skills"))) is next(iter(records("builtin:skills")))
