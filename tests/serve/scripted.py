"""A server whose model says what a script tells it, for tests of clients: only the choice of tokens is not real."""

import re
from pathlib import Path
from typing import Literal

import torch
from pydantic import BaseModel, Field

from sanbu.codecs.tokenizer import encode
from sanbu.serve.conversation import HEAD

QUESTION, RESULT, TOLD = "What is the weather in Rome?", "sunny, 21 degrees", "It is sunny in Rome. 🌞"
CALL = '{"name":"weather","arguments":{"city":"Rome"}}'


class Pet(BaseModel):
    kind: Literal["cat", "dog"]


class Person(BaseModel):
    """Somebody."""

    name: Literal["Ada", "Bob"]
    age: int = Field(ge=0, le=99)
    pet: Pet | None


class Line:
    """A guide that allows one text only."""

    def __init__(self, ids, vocabulary):
        self.ids, self.vocabulary, self.place = ids, vocabulary, 0

    def allowed(self):
        mask = torch.zeros(self.vocabulary, dtype=torch.bool)
        mask[self.ids[self.place]] = True
        return mask

    def commit(self, token):
        self.place += 1

    def ended(self):
        return self.place == len(self.ids)

    def forced(self):
        return []


def script(app, service):
    """Answers without a grammar: a call where functions are told and no result is there yet, else a sentence."""
    for served in service.runs.values():
        engine, tokenizer = served.engine, served.codec.tokenizer
        submit, vocabulary = engine.submit, served.run.recipe.data.space().vocabulary

        def scripted(*requests, tokenizer=tokenizer, submit=submit, vocabulary=vocabulary):
            for request in requests:
                asked = b"".join(tokenizer.pieces[token] for token in request.prompt).decode("utf-8", "replace")
                text = CALL if HEAD[:20] in asked and RESULT not in asked else TOLD
                request.guide = request.guide or Line(encode(tokenizer, text), vocabulary)
            submit(*requests)

        engine.submit = scripted


def documented(client, url):
    """How a client finds the server, from the table in docs/service.md, with this URL and the run `long`."""
    page = (Path(__file__).parents[2] / "docs" / "service.md").read_text(encoding="utf-8")
    line = re.search(rf"^\| {re.escape(client)} \|[^`]*(?:`extra-\S+`: )?`([^`]*)`", page, re.M)[1]
    assert line.count("http://localhost:8000/v1") == 1
    return re.sub(r"\bppo\b", "long", line.replace("http://localhost:8000/v1", url))
