"""English words of numbers: cardinals, ordinals, years, decimals, fractions, digits one by one."""

from __future__ import annotations

ONES = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
]
TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
SCALES = ("", "thousand", "million", "billion", "trillion")
IRREGULAR = {
    "one": "first",
    "two": "second",
    "three": "third",
    "five": "fifth",
    "eight": "eighth",
    "nine": "ninth",
    "twelve": "twelfth",
}
LARGEST = 10**15  # numbers from here are read digit by digit


def below_thousand(number: int) -> list[str]:
    """The words of 1 to 999; none for 0."""
    hundreds, rest = divmod(number, 100)
    words = [ONES[hundreds], "hundred"] if hundreds else []
    if rest >= 20:
        words.append(TENS[rest // 10])
        rest %= 10
    return words + ([ONES[rest]] if rest else [])


def cardinal(number: int) -> str:
    """21 -> twenty one; digits one by one from 10^15."""
    if number < 0:
        return "minus " + cardinal(-number)
    if number >= LARGEST:
        return digits(str(number))
    words: list[str] = []
    for power in reversed(range(len(SCALES))):
        part = number // 1000**power % 1000
        if part:
            words += [*below_thousand(part), SCALES[power]]
    return " ".join(word for word in words if word) or ONES[0]


def ordinal(number: int) -> str:
    """21 -> twenty first."""
    *before, last = cardinal(number).split()
    if last in IRREGULAR:
        last = IRREGULAR[last]
    else:
        last = last[:-1] + "ieth" if last.endswith("y") else last + "th"
    return " ".join([*before, last])


def plural(words: str) -> str:
    """The plural of the last word: ninety -> nineties, foot is up to the caller."""
    if words.endswith("y") and words[-2:-1] not in set("aeiou"):
        return words[:-1] + "ies"
    return words + ("es" if words.endswith(("x", "s", "ch", "sh")) else "s")


def year(number: int) -> str:
    """1805 -> eighteen oh five; 1900 -> nineteen hundred; 2005 -> two thousand five."""
    century, rest = divmod(number, 100)
    if century % 10 == 0 and rest < 10:
        return cardinal(number)
    if rest == 0:
        return cardinal(century) + " hundred"
    return cardinal(century) + (" oh " if rest < 10 else " ") + cardinal(rest)


def digits(text: str) -> str:
    """007 -> zero zero seven."""
    return " ".join(ONES[int(symbol)] for symbol in text if symbol in "0123456789")


def spoken_number(text: str) -> str:
    """A written number with its commas and decimals: 1,234.50 -> one thousand ... point five zero."""
    whole, _, decimals = text.replace(",", "").partition(".")
    leading = len(whole) > 1 and whole.startswith("0")
    said = digits(whole) if leading or len(whole) > 15 else cardinal(int(whole or "0"))
    return said + (" point " + digits(decimals) if decimals else "")


def fraction(upper: int, lower: int) -> str:
    """3/4 -> three quarters; a denominator above 20 or of 0 or 1 is said with `over`."""
    if not 2 <= lower <= 20:
        return f"{cardinal(upper)} over {cardinal(lower)}"
    if lower == 2:
        return cardinal(upper) + (" half" if upper == 1 else " halves")
    part = "quarter" if lower == 4 else ordinal(lower)
    return f"{cardinal(upper)} {part}" + ("" if upper == 1 else "s")
