"""The kinds of data of conversations: to imitate, to answer, to prefer. Configs only; each `build` imports its module when called."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from sanbu.codecs.kinds import Byte, TemplateConfig, TokenizerConfig, Turns
from sanbu.data.kinds import Codec, Data, DataConfig, Space, Text


class ConversationConfig(DataConfig):
    """What all data of conversations has in common."""

    path: str = Field("skills", description="JSONL of conversations or preferences; skills: questions made here")
    tokenizer: TokenizerConfig = Field(Byte(), description="that of the run one starts from")
    template: TemplateConfig = Turns()
    context: int = Field(128, ge=8, description="tokens at most")
    validation: float = Field(0.05, ge=0, lt=1, description="share of the questions held out, by a hash of the question")
    too_long: Literal["refuse", "drop"] = Field("refuse", description="what becomes of a record that does not fit")

    def space(self) -> Space:
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end())

    def resolve(self) -> Self:
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve(), "template": self.template.resolve()})

    def codec(self, folder: Path) -> Codec:
        from sanbu.codecs.chat import ChatCodec
        from sanbu.codecs.text import TextCodec

        return ChatCodec(TextCodec.load(folder, self.tokenizer).tokenizer, self.template)


class Chat(ConversationConfig):
    """Conversations to imitate: only what the assistant says is taught."""

    kind: Literal["chat"] = "chat"

    def build(self) -> Data:
        from sanbu.data.chat import ChatRows

        return ChatRows(self)


class Prompts(ConversationConfig):
    """Questions to answer, for learning from one's own answers."""

    kind: Literal["prompts"] = "prompts"
    answer: int = Field(48, ge=1, description="tokens kept free for the answer")
    mix: Text | None = Field(None, description="text to go on learning from beside the answers (InstructGPT's ptx)")

    @model_validator(mode="after")
    def _room(self) -> Self:
        if self.answer >= self.context:
            raise ValueError(f"data.answer: given {self.answer}, but data.context is {self.context}")
        return self

    def build(self) -> Data:
        from sanbu.data.chat import PromptRows

        return PromptRows(self)


class PreferenceConfig(ConversationConfig):
    """Answers to the same question, better and worse."""


class Rankings(PreferenceConfig):
    """A question a row, with all its answers and their ranks."""

    kind: Literal["rankings"] = "rankings"
    answers: int = Field(4, ge=2, description="answers a question at most; the first ones are taken")

    def build(self) -> Data:
        from sanbu.data.preferences import RankingRows

        return RankingRows(self)


class Pairs(PreferenceConfig):
    """A better and a worse answer a row: every pair of a ranking that is no tie, or one drawn for each."""

    kind: Literal["pairs"] = "pairs"
    take: Literal["all", "best"] = Field("best", description="all pairs of a ranking, or the best against each other one")

    def build(self) -> Data:
        from sanbu.data.preferences import PairRows

        return PairRows(self)


class Mappings(DataConfig):
    """Random mappings of letters to digits, to be learnt from the examples in the row."""

    kind: Literal["mappings"] = "mappings"
    letters: int = Field(4, ge=1, le=26, description="letters a mapping has")
    shots: int = Field(16, ge=1, description="examples before the last question")

    def space(self) -> Space:
        return Space((2 * self.shots + 1,), 37, 36)

    def build(self) -> Data:
        from sanbu.data.mappings import MappingRows

        return MappingRows(self)

    def codec(self, folder: Path) -> Codec:
        from sanbu.codecs.text import TextCodec
        from sanbu.codecs.tokenizer import CharacterTokenizer
        from sanbu.data.mappings import ALPHABET

        return TextCodec(CharacterTokenizer(ALPHABET))


class Labelled(DataConfig):
    """Texts with labels, in the forms of GPT-1's fine-tuning."""

    kind: Literal["labelled"] = "labelled"
    path: str = Field("skills", description="JSONL, CSV or TSV; skills: which skill a question asks for")
    task: Literal["classification", "entailment", "similarity", "choice", "regression"] = "classification"
    text: str = Field("text", description="the field of the text, or of the first of two")
    second: str = Field("second", description="the field of the second text, or of the list of choices")
    label: str = Field("label", description="the field of the label: a name, a number, or the index of the right choice")
    labels: tuple[str, ...] | Literal["auto"] = Field("auto", description="the names of the labels")
    tokenizer: TokenizerConfig = Field(Byte(), description="that of the run one starts from")
    context: int = Field(128, ge=8, description="tokens at most; longer texts are cut")
    validation: float = Field(0.1, ge=0, lt=1, description="share of the texts held out, by a hash of the text")

    def space(self) -> Space:
        return Space((self.context,), self.tokenizer.size(), self.tokenizer.end(), classes=len(self.names()))

    def names(self) -> list[str]:
        """The labels' names; none where there are no classes."""
        if self.labels != "auto":
            return list(self.labels)
        from sanbu.data.labelled import look

        return look(self)

    def resolve(self) -> Labelled:
        return self.model_copy(update={"tokenizer": self.tokenizer.resolve(), "labels": tuple(self.names())})

    def build(self) -> Data:
        from sanbu.data.labelled import LabelledRows

        return LabelledRows(self)

    def codec(self, folder: Path) -> Codec:
        from sanbu.codecs.text import TextCodec
        from sanbu.data.labelled import LabelCodec

        return LabelCodec(TextCodec.load(folder, self.tokenizer).tokenizer, self.names())
