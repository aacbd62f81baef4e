"""The kinds of tokenizer. Configs only; each `build` imports its module when called."""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from sanbu.config import Choice, ConfigError

if TYPE_CHECKING:
    from sanbu.codecs.chat import Template
    from sanbu.codecs.tokenizer import Tokenizer

END = "<|endoftext|>"
START_TOKENS = ("<s>", "<|begin_of_text|>", "<bos>", "[CLS]")
END_TOKENS = (END, "</s>", "<|end_of_text|>", "<eos>", "[SEP]")
PAD, SYSTEM, USER, ASSISTANT = "<|pad|>", "<|system|>", "<|user|>", "<|assistant|>"
DELIMITER, EXTRACT = "<|delimiter|>", "<|extract|>"
RESERVED = (END, PAD, SYSTEM, USER, ASSISTANT, DELIMITER, EXTRACT)


class TokenizerConfig(Choice):
    """How text becomes tokens."""

    def size(self) -> int:
        """The vocabulary, known without the data."""
        raise NotImplementedError

    def end(self) -> int | None:
        """The id that ends a document."""
        raise NotImplementedError

    def build(self, documents: Iterable[str]) -> Tokenizer:
        """The tokenizer, trained on the documents where it is learnt."""
        raise NotImplementedError

    def resolve(self) -> TokenizerConfig:
        """This config with every `auto` turned into what its file says."""
        return self


class Byte(TokenizerConfig):
    """One token a byte of UTF-8."""

    kind: Literal["byte"] = "byte"

    def size(self) -> int:
        return 257

    def end(self) -> int:
        return 256

    def build(self, documents: Iterable[str]) -> Tokenizer:
        from sanbu.codecs.tokenizer import ByteTokenizer

        return ByteTokenizer()


class Characters(TokenizerConfig):
    """One token a character of a stated alphabet; other characters are refused."""

    kind: Literal["characters"] = "characters"
    alphabet: str = Field("\n" + string.printable[:95], min_length=1, description="the characters, each once")

    def size(self) -> int:
        return len(self.alphabet) + 1

    def end(self) -> int:
        return len(self.alphabet)

    def build(self, documents: Iterable[str]) -> Tokenizer:
        from sanbu.codecs.tokenizer import CharacterTokenizer

        return CharacterTokenizer(self.alphabet)


class BPE(TokenizerConfig):
    """Byte-level byte-pair encoding, trained on the data (Sennrich and others, 2016; Radford and others, 2019)."""

    kind: Literal["bpe"] = "bpe"
    vocabulary: int = Field(4096, ge=258, description="tokens, the 256 bytes and the end of text among them")

    def size(self) -> int:
        return self.vocabulary

    def end(self) -> int:
        return 0

    def build(self, documents: Iterable[str]) -> Tokenizer:
        from sanbu.codecs.bpe import train

        return train(documents, self.vocabulary)


class ChatBPE(TokenizerConfig):
    """Byte-level BPE with every digit a token of its own, and tokens for padding, roles and tasks that no text can write."""

    kind: Literal["chat-bpe"] = "chat-bpe"
    vocabulary: int = Field(4096, ge=264, description="tokens, the 256 bytes and seven reserved ones among them")

    def size(self) -> int:
        return self.vocabulary

    def end(self) -> int:
        return 0

    def build(self, documents: Iterable[str]) -> Tokenizer:
        from sanbu.codecs.bpe import train_chat

        return train_chat(documents, self.vocabulary)


class TokenizerFile(TokenizerConfig):
    """Any tokenizer.json, as the tokenizers library writes it."""

    kind: Literal["file"] = "file"
    path: str = Field(description="a tokenizer.json, or a folder that holds one")
    vocabulary: int | Literal["auto"] = Field("auto", description="size of the model's vocabulary; auto reads the file")
    end_id: int | Literal["auto"] | None = Field(
        "auto", description="the id that ends a document; auto looks for its usual names"
    )

    start_id: int | Literal["auto"] | None = Field(
        "auto", description="the id that begins one; auto looks, and takes the end"
    )

    def file(self) -> Path:
        """The file itself. Raises ConfigError when it is missing."""
        path = Path(self.path)
        path = path / "tokenizer.json" if path.is_dir() else path
        if not path.is_file():
            raise ConfigError(f"data.tokenizer.path: there is no file {path}")
        return path

    def size(self) -> int:
        return max(vocabulary_of(self.file()).values()) + 1 if self.vocabulary == "auto" else self.vocabulary

    def end(self) -> int | None:
        if self.end_id != "auto":
            return self.end_id
        return first_of(END_TOKENS, vocabulary_of(self.file()))

    def resolve(self) -> TokenizerFile:
        known = {"vocabulary": self.size(), "end_id": self.end(), "start_id": self.start()}
        return self.model_copy(update=known)

    def start(self) -> int | None:
        """The id that begins a document."""
        if self.start_id != "auto":
            return self.start_id
        found = first_of(START_TOKENS, vocabulary_of(self.file()))
        return self.end() if found is None else found

    def build(self, documents: Iterable[str]) -> Tokenizer:
        from sanbu.codecs.bpe import FileTokenizer

        return FileTokenizer.load(self.file(), self.end(), self.start())


def first_of(names: Iterable[str], ids: dict[str, int]) -> int | None:
    """The id of the first of these tokens that a vocabulary has."""
    return next((ids[name] for name in names if name in ids), None)


@lru_cache(maxsize=8)
def _read(path: Path, changed: float) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        raise ConfigError(f"{path} is not a tokenizer.json: it does not read as JSON") from None


def vocabulary_of(path: Path) -> dict[str, int]:
    """Token text to id, of a tokenizer.json; added tokens included. Raises ConfigError when it is not one."""
    content = _read(path, path.stat().st_mtime)
    model = content.get("model")
    if not isinstance(model, dict) or "vocab" not in model:
        raise ConfigError(f"{path} is not a tokenizer.json: it has no model with a vocabulary")
    vocabulary = model["vocab"]
    pairs = vocabulary.items() if isinstance(vocabulary, dict) else ((entry[0], i) for i, entry in enumerate(vocabulary))
    return dict(pairs) | {token["content"]: token["id"] for token in content.get("added_tokens", ())}


class TemplateConfig(Choice):
    """How a conversation is written down for the model."""

    def build(self, tokenizer: Tokenizer) -> Template:
        raise NotImplementedError

    def resolve(self) -> TemplateConfig:
        """This config with the text of a template file in it."""
        return self


class Turns(TemplateConfig):
    """Our own: a token for each role, an end after each answer."""

    kind: Literal["turns"] = "turns"

    def build(self, tokenizer: Tokenizer) -> Template:
        from sanbu.codecs.chat import Turns as Renderer

        return Renderer(tokenizer)


class Jinja(TemplateConfig):
    """A chat template as model makers publish it, run in a sandbox."""

    kind: Literal["jinja"] = "jinja"
    path: str = Field("", description="a folder with tokenizer_config.json or chat_template.jinja, or such a file")
    source: str = Field("", description="the template itself; read from path when a run begins")
    end: str = Field("", description="what the template calls eos_token; by default the tokenizer's end")

    def build(self, tokenizer: Tokenizer) -> Template:
        from sanbu.codecs.jinja import JinjaTemplate, source_of

        return JinjaTemplate(self.source or source_of(self.path), tokenizer, self.end)

    def resolve(self) -> Jinja:
        from sanbu.codecs.jinja import source_of

        return self if self.source else self.model_copy(update={"source": source_of(self.path)})
