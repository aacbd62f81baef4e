"""Questions outside of what the assistant is taught; the right answer to each is UNKNOWN.

The wordings and words in `RESERVED` occur only in questions that are held out, so the evaluation asks in words that
were never trained on. All other wordings occur only in questions that are not held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sanbu.data.builtin.question import Draws, Question, held_out, sentence

UNKNOWN = "I do not know."


@dataclass(frozen=True)
class Wordings:
    """Sentences, and what stands in their gaps: {thing}, {place}, {name}, {verb}, {quality}."""

    world: tuple[str, ...]
    languages: tuple[str, ...]
    words: dict[str, tuple[str, ...]]


TRAINED = Wordings(
    (
        "Who {verb} the {thing}?",
        "Who is {name}?",
        "Who was the first {thing} of {place}?",
        "Who lives in {place}?",
        "Who is the {quality} {name}?",
        "What is a {thing}?",
        "What is the capital of {place}?",
        "What is {place}?",
        "What is the name of the {thing}?",
        "What is the {quality} {thing} in {place}?",
        "What does a {thing} eat?",
        "What does {name} do?",
        "What is the {thing} for?",
        "What color is the {thing}?",
        "What is the {thing}?",
        "Where is {place}?",
        "Where is the {thing}?",
        "Where does {name} live?",
        "Where was {name} born?",
        "Why is the {thing} {quality}?",
        "Why did {name} go to {place}?",
        "Why does the {thing} {verb}?",
        "When was the {thing} {verb}?",
        "When did {name} leave {place}?",
        "When is the {thing} in {place}?",
        "How {quality} is the {thing}?",
        "How old is {name}?",
        "How do I get to {place}?",
        "How do you {verb} a {thing}?",
        "How many people live in {place}?",
        "Which {thing} is {quality}?",
        "Which {thing} did {name} buy?",
        "Is {name} {quality}?",
        "Is the {thing} {quality}?",
        "Is {place} in {place}?",
        "Does {name} {verb} the {thing}?",
        "Can a {thing} be {quality}?",
        "Do you like {name}?",
        "Do you know {place}?",
        "Are you {quality}?",
        "Tell me about {name}.",
        "Tell me a story of a {thing}.",
        "Tell me if {name} is {quality}.",
        "Describe the {thing}.",
        "Describe {place} in one line.",
        "Explain the {thing}.",
        "Explain why {name} is {quality}.",
        "Write a poem on a {quality} {thing}.",
        "Write a letter to {name}.",
        "Draw a {thing}.",
        "Sing a song.",
        "{name} is {quality}.",
        "The {thing} in {place} was {quality}.",
        "My {thing} is {quality}.",
        "{thing} {thing}",
        "Buy a {thing} in {place}.",
        "{quality}",
        "{thing}?",
        "What is love?",
        "What time is it?",
        "Does a {thing} {verb}?",
        "Was {name} in {place}?",
        "Has {name} a {thing}?",
        "Will the {thing} be {quality}?",
        "May I {verb} the {thing}?",
    ),
    (
        "Wer ist {name}?",
        "Wo ist {place}?",
        "Was ist ein {thing}?",
        "Warum ist {name} so alt?",
        "Wie geht es dir?",
        "Ich habe eine Frage zu {place}.",
        "Qui est {name}?",
        "O\u00f9 est {place}?",
        "Pourquoi {name} est ici?",
        "Comment vas-tu, {name}?",
        "Quien es {name}?",
        "Donde esta {place}?",
        "Como te llamas?",
        "Por que {name}?",
        "Dove si trova {place}?",
        "Chi ha scritto il {thing}?",
        "{name}\u662f\u8c01\uff1f",
        "{place}\u5728\u54ea\u91cc\uff1f",
        "\u4f60\u597d",
        "\u8c22\u8c22\u4f60",
        "\u4e3a\u4ec0\u4e48\uff1f",
        "\u041a\u0442\u043e {name}?",
        "\u0413\u0434\u0435 {place}?",
        "Onde fica {place}?",
        "Wat is een {thing}?",
        "Hvor er {name}?",
    ),
    {
        "thing": tuple(
            [
                "sky",
                "moon",
                "sun",
                "river",
                "book",
                "car",
                "house",
                "tree",
                "dog",
                "bird",
                "king",
                "song",
                "war",
                "bridge",
                "mountain",
                "ship",
                "door",
                "garden",
                "film",
                "game",
                "phone",
                "letter",
                "cake",
                "train",
                "horse",
                "city",
                "storm",
                "table",
                "bread",
                "coat",
                "clock",
                "cloud",
                "desk",
                "egg",
                "farm",
                "fish",
                "flower",
                "glass",
                "hat",
                "island",
                "kitchen",
                "lamp",
                "market",
                "mirror",
                "museum",
                "ocean",
                "opera",
                "painter",
                "poem",
                "queen",
                "road",
                "rocket",
                "school",
                "shirt",
                "shop",
                "snake",
                "star",
                "teacher",
                "tiger",
                "tower",
                "village",
                "window",
                "winter",
            ]
        ),
        "place": tuple(
            [
                "France",
                "Rome",
                "Peru",
                "China",
                "Egypt",
                "London",
                "Berlin",
                "Canada",
                "Brazil",
                "Kenya",
                "Tokyo",
                "Spain",
                "Texas",
                "Norway",
                "India",
                "Chile",
                "Oslo",
                "Vienna",
                "Moscow",
                "Cairo",
                "Boston",
                "Greece",
                "Ireland",
                "Turkey",
                "Sweden",
                "Japan",
                "Mars",
                "Asia",
                "Europe",
                "Lisbon",
                "Dublin",
            ]
        ),
        "name": tuple(
            [
                "Anna",
                "Peter",
                "Maria",
                "John",
                "Napoleon",
                "Mozart",
                "Einstein",
                "Homer",
                "Alice",
                "Robert",
                "Laura",
                "Goethe",
                "Newton",
                "Julia",
                "Plato",
                "Caesar",
                "Thomas",
                "Emma",
                "Lucas",
                "Sophie",
                "Hamlet",
                "Victor",
                "Clara",
                "Oscar",
                "Diana",
                "Felix",
                "Nora",
                "Simon",
                "Rosa",
                "Hugo",
            ]
        ),
        "verb": tuple(
            [
                "wrote",
                "built",
                "found",
                "made",
                "bought",
                "sold",
                "painted",
                "saw",
                "broke",
                "sing",
                "fly",
                "swim",
                "burn",
                "grow",
                "paint",
                "build",
                "open",
                "sleep",
                "dance",
                "cook",
                "shine",
                "drive",
                "carry",
                "lost",
                "won",
            ]
        ),
        "quality": tuple(
            [
                "blue",
                "old",
                "tall",
                "big",
                "cold",
                "green",
                "happy",
                "rich",
                "famous",
                "heavy",
                "fast",
                "young",
                "deep",
                "strange",
                "red",
                "small",
                "hot",
                "loud",
                "empty",
                "sweet",
                "dark",
                "dry",
                "far",
                "kind",
                "late",
                "long",
                "poor",
                "quiet",
                "round",
                "sad",
                "sharp",
                "soft",
                "strong",
                "tired",
                "true",
                "warm",
                "wet",
                "wide",
                "wise",
            ]
        ),
    },
)
RESERVED = Wordings(
    (
        "Who painted the {thing} of {place}?", "Who told {name} to {verb}?", "What happened in {place}?",
        "What is the best {thing} in {place}?", "What do you think of {name}?", "Where can I buy a {thing}?",
        "Where do {quality} people go?", "Why is {name} in {place}?", "Why do we {verb}?", "When will {name} come back?",
        "How far is {place}?", "How did {name} {verb} the {thing}?", "Which is the {quality} {thing} of all?",
        "Is there a {thing} in {place}?", "Should I {verb} a {quality} {thing}?", "Tell me what {name} wants.",
        "Write about the {thing}.", "Give me a {thing}.", "The {thing} of {place} is {quality}.", "Have you met {name}?",
    ),
    ("Wo wohnt {name}?", "Quand vient {name}?", "Que es un {thing}?", "{place}\u5f88\u8fdc\u5417\uff1f", "Dov'e {name}?"),
    {
        "thing": tuple(["castle", "piano", "forest", "engine", "lion", "church", "doctor", "robot", "planet", "novel", "wall", "spoon", "volcano"]),
        "place": tuple(["Italy", "Paris", "Mexico", "Madrid", "Poland", "Venus", "Athens", "Africa"]),
        "name": tuple(["Shakespeare", "Michael", "Darwin", "Sarah", "Picasso", "Elena", "Martin"]),
        "verb": tuple(["cut", "draw", "read", "stole", "invented", "walk"]),
        "quality": tuple(["yellow", "new", "high", "beautiful", "slow", "expensive", "bright", "proud"]),
    },
)  # fmt: skip
SYLLABLES = tuple(
    [
        "ba",
        "blo",
        "dra",
        "fe",
        "gru",
        "hi",
        "ja",
        "klo",
        "lum",
        "mi",
        "nor",
        "pax",
        "qui",
        "ri",
        "sto",
        "tu",
        "vex",
        "wo",
        "xi",
        "zu",
    ]
)
ENDINGS = ("?", ".", "", "!", "??")


def outside(draws: Draws) -> Question:
    """A question that the assistant cannot answer; near misses are made-up answers."""
    kind = draws.choose((world, world, world, numbers, gibberish, language, function))
    reserved = draws.below(20) == 0
    text = kind(draws, RESERVED if reserved else TRAINED)
    while held_out(text) != reserved:
        text = kind(draws, RESERVED if reserved else TRAINED)
    word = draws.choose(TRAINED.words["quality"])
    near = (sentence(draws.below(100)), sentence(word), f"Yes, {word} is a keyword.", f"No, {word} is not a keyword.")
    return Question(text, UNKNOWN, near, "outside")


def world(draws: Draws, wordings: Wordings) -> str:
    """Who, what, where, why, when, how; requests and statements."""
    return fill(draws, draws.choose(wordings.world), wordings.words)


def language(draws: Draws, wordings: Wordings) -> str:
    """A sentence in another language."""
    return fill(draws, draws.choose(wordings.languages), wordings.words)


def fill(draws: Draws, text: str, words: dict[str, tuple[str, ...]]) -> str:
    """A sentence with its gaps filled, each with a word of its own."""
    for gap, choices in words.items():
        while f"{{{gap}}}" in text:
            text = text.replace(f"{{{gap}}}", draws.choose(choices), 1)
    return text


def numbers(draws: Draws, wordings: Wordings) -> str:
    """A calculation with numbers that are too large, or with operations that are not taught."""
    large = 10 ** (2 + draws.below(4))
    a, b = large + draws.below(9 * large), draws.below(10_000)
    if wordings is RESERVED:
        return draws.choose(("What is {} + {}?", "What is {} - {}?", "What is {} times {}?")).format(a, b)
    forms: tuple[Callable[[], str], ...] = (
        lambda: f"What is {a} + {b}?",
        lambda: f"What is {a} - {b}?",
        lambda: f"What is {draws.below(100)} {draws.choose('*/^%')} {draws.below(100)}?",
        lambda: f"What is {draws.below(100)} {draws.choose('+-')} {100 + b}?",
        lambda: f"What is the root of {b}?",
        lambda: f"Is {a} a prime number?",
        lambda: f"How many is {b} and {draws.below(100)}?",
    )
    return draws.choose(forms)()


def gibberish(draws: Draws, wordings: Wordings) -> str:
    """Made-up words, or letters in no order."""
    if draws.below(3) == 0:
        letters = "".join(chr(97 + draws.below(26)) for _ in range(3 + draws.below(8)))
        return letters + draws.choose(ENDINGS)
    count = 1 + draws.below(4)
    invented = ("".join(draws.choose(SYLLABLES) for _ in range(1 + draws.below(3))) for _ in range(count))
    return " ".join(invented) + draws.choose(ENDINGS)


def function(draws: Draws, wordings: Wordings) -> str:
    """A function that does not exist."""
    thing, verb = draws.choose(wordings.words["thing"]), draws.choose(wordings.words["verb"])
    wording = draws.choose(("What does {} do?", "Describe {}.", "Explain {} in one line.", "What is {} for?"))
    return wording.format(f"{thing}.{verb}")
