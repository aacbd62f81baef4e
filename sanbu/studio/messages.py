"""What the page says, errors too, in the language of the reader; and numbers as a Chinese keyboard types them."""

from __future__ import annotations

import re
import unicodedata
from typing import Any

from sanbu.config import SanbuError
from sanbu.studio.translations import Language, translate

NUMBERS = re.compile(r"[-+\d.,\[\]eE\s]+")
ERRORS = (  # the commonest errors of recipes
    (r"no field (.+?) here; fields: ", r"没有字段 \1；可用字段："),
    (r"unknown kind (.+?); allowed: ", r"未知的类型 \1；可选："),
    (r"unknown recipe (.+?); recipes: ", r"未知的配方 \1；可选："),
    (r"(.+?) is not an override; write (.+?), as in ", r"\1 不是修改项；写法为 \2，例如 "),
    (r"; did you mean (.+?)\?", r"；是否指 \1？"),
    (r"given (.+?), but input should be ", r"给定 \1，应为："),
    (r"given (.+?), allowed: ", r"给定 \1，允许："),
    (r"given (.+?), but ", r"给定 \1，但 "),
    (r"a valid integer", "整数"),
    (r"a valid number", "数值"),
    (r"a valid boolean", "true 或 false"),
    (r"greater than or equal to ", "不小于 "),
    (r"less than or equal to ", "不大于 "),
    (r"greater than ", "大于 "),
    (r"less than ", "小于 "),
    (r"No closing quotation", "引号没有闭合"),
    (r"there is no file ", "找不到文件 "),
    (r" or (?='|\S+$)", " 或 "),
)


class Message(SanbuError):
    """An error of the page itself, in both languages. text: its name in translations.py; facts: what it names."""

    def __init__(self, text: str, /, **facts: Any) -> None:
        self.text, self.facts = text, facts
        super().__init__(self.told("en"))

    def told(self, language: Language) -> str:
        """The text in one language."""
        facts = {key: told(fact, language) for key, fact in self.facts.items()}
        return translate(self.text, language).format(**facts)


def told(error: Any, language: Language) -> Any:
    """An error in one language; of the library's own, the frame is translated and names stay as they are.

    What is no error stays as it is.
    """
    if isinstance(error, Message):
        return error.told(language)
    if not isinstance(error, Exception):
        return error
    text = str(error)
    if language == "zh":
        for pattern, chinese in ERRORS:
            text = re.sub(pattern, chinese, text)
    return translate("problem", language).format(error=text)


def plain_number(text: str) -> str:
    """A number, or a list of numbers, in plain digits where it is typed in full width: ７ -> 7; other text as it is."""
    plain = unicodedata.normalize("NFKC", text)
    return plain if NUMBERS.fullmatch(plain) else text


def plain_assignment(text: str) -> str:
    """A change such as schedule.steps＝７ in plain characters; a value that is no number stays as it is."""
    found = re.match(r"([^=＝]*)[=＝](.*)", text, re.DOTALL)
    if found is None:
        return text
    return f"{unicodedata.normalize('NFKC', found[1])}={plain_number(found[2])}"
