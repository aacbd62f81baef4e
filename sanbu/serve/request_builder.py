"""Turns a request body into engine requests, or into a job when its strategy is not autoregressive."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from sanbu.codecs.text import batch_of
from sanbu.config import SanbuError
from sanbu.run import Drawing
from sanbu.serve.errors import APIError
from sanbu.serve.grammar import Grammar
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.metrics import Metrics
from sanbu.serve.request import Finish, Guide, Request
from sanbu.serve.schemas import SamplingBody
from sanbu.serve.single_lane import Job
from sanbu.serve.strategy_fields import check_limits, check_shape, strategy_fields
from sanbu.serve.streaming import Answer, EventQueue, GeneratedToken, Piece, stream_job, stream_pieces
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.strategies.strategy import StrategyConfig

ENTRIES = 1 << 18  # log-probabilities in one response


@dataclass
class Generation:
    """n answers per prompt, and their sampling parameters. Answer i of prompt p has the index p n + i."""

    served: HostedRun
    prompts: Sequence[Sequence[int]]
    n: int
    seed: int
    drawing: Drawing
    batched: bool  # sampled by the engine, in a batch with other requests
    top: int | None = None
    presence: float = 0.0
    frequency: float = 0.0
    bias: dict[int, float] = field(default_factory=dict)
    grammar: Grammar | None = None  # that all answers are held to
    expected: Sequence[int] = ()  # predicted output, used for speculative decoding
    scored: bool = False  # the log-probabilities of the prompts are wanted too
    owner: str = ""  # who asks; see Request
    seeded: bool = field(init=False, default=False)  # the request gave the seed
    answers: list[Answer] = field(init=False, default_factory=list)
    requests: list[Request] = field(init=False, default_factory=list)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens, each prompt counted once."""
        return sum(map(len, self.prompts))

    def seed_of(self, number: int) -> int:
        """The seed of an answer: `seed` + i for every prompt if the request gave it, else one of its own."""
        return self.seed + (number % self.n if self.seeded else number)

    def most_tokens(self) -> int:
        """How many tokens the request may use, at most."""
        most = getattr(self.drawing.recipe.strategy, "max_tokens", 0)
        return sum(
            len(prompt) + self.n * min(most, max(0, self.served.context - len(prompt))) for prompt in self.prompts
        )

    def usage(self) -> dict[str, Any]:
        """Token counts, as OpenAI reports them."""
        said = sum(answer.tokens for answer in self.answers)
        cached = sum(request.cached for request in self.requests[:: self.n])
        accepted = sum(request.accepted for request in self.requests)
        rejected = sum(request.rejected for request in self.requests)
        return {
            "prompt_tokens": self.prompt_tokens, "completion_tokens": said, "total_tokens": self.prompt_tokens + said,
            "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0, "audio_tokens": 0,
                "accepted_prediction_tokens": accepted, "rejected_prediction_tokens": rejected,
            },
        }  # fmt: skip

    def pieces(self, metrics: Metrics) -> AsyncIterator[Piece]:
        """Submit, and stream the generated pieces. Raises Busy immediately when the queue is full."""
        return self._engine(metrics) if self.batched else self._job()

    def _engine(self, metrics: Metrics) -> AsyncIterator[Piece]:
        engine, queue = self.served.engine, EventQueue()
        assert engine is not None
        mine = self.drawing.recipe.strategy
        config = mine if isinstance(mine, Autoregressive) else Autoregressive()
        tokenizer = self.served.codec.tokenizer
        for number, prompt in enumerate(prompt for prompt in self.prompts for _ in range(self.n)):
            self.answers.append(Answer(number, tokenizer, config.stop, self.scored))
            guide: Guide | None = None if self.grammar is None else self.grammar.guide()
            self.requests.append(
                Request(
                    prompt, config, self.seed_of(number), queue.sender(number), self.top or 0,
                    self.presence, self.frequency, self.bias, guide, self.expected,
                    [] if self.scored else None, self.owner,
                )
            )  # fmt: skip
        engine.submit(*self.requests)
        return stream_pieces(self.served, self.requests, queue, self.answers, metrics)

    def _job(self) -> AsyncIterator[Piece]:
        rows = [list(prompt) for prompt in self.prompts for _ in range(self.n)]
        longest = max(map(len, rows))
        if self.served.context and longest >= self.served.context:
            raise SanbuError(f"the prompt has {longest} tokens; allowed: 1 to {self.served.context - 1}")
        follower: Any = self.drawing.follow()
        tokenizer = self.served.codec.tokenizer
        self.answers = [Answer(number, tokenizer, ()) for number in range(len(rows))]
        seeds = torch.tensor([self.seed_of(number) for number in range(len(rows))])

        def job_steps() -> Iterator[list[tuple[str, bool, int]]]:
            for draft in self.drawing.drafts(batch_of(rows), seeds, follower.update):
                count = (draft.committed.sum(1) - draft.record["start"]).tolist()
                ended = (draft.done | torch.tensor([reader.stopped for reader in follower.readers])).tolist()
                yield list(zip(follower.pieces, ended, count, strict=True))

        return self._follow(stream_job(lambda deliver, end: Job(job_steps(), deliver, end, self.owner), self.served))

    async def _follow(self, drafts: AsyncIterator[list[tuple[str, bool, int]]]) -> AsyncIterator[Piece]:
        most = getattr(self.drawing.recipe.strategy, "max_tokens", 0)
        async for rows in drafts:
            for answer, (text, ended, count) in zip(self.answers, rows, strict=True):
                if answer.finish is None and (text or ended):
                    answer.tokens = count
                    how: Finish = "length" if count >= most else "stop"
                    answer.finish = how if ended else None
                    yield Piece(answer.index, text, (), answer.finish)


@dataclass
class Answers:
    """What was generated: text, tokens and end of every answer."""

    texts: list[str]
    tokens: list[list[GeneratedToken]]
    ends: list[Finish | None]


async def collected(generation: Generation, pieces: AsyncIterator[Piece]) -> Answers:
    """All pieces of all answers."""
    count = len(generation.prompts) * generation.n
    texts: list[list[str]] = [[] for _ in range(count)]
    made = Answers([""] * count, [[] for _ in range(count)], [None] * count)
    entries = 0
    async for piece in pieces:
        if generation.top is not None:
            entries += len(piece.tokens) * (generation.top + 1)
            if entries > ENTRIES:
                raise too_many_entries(entries)
            made.tokens[piece.index] += piece.tokens
        texts[piece.index].append(piece.text)
        made.ends[piece.index] = piece.finish
    made.texts = ["".join(parts) for parts in texts]
    return made


def build_generation(
    served: HostedRun, body: SamplingBody, prompts: Sequence[Sequence[int]], most: int | None, **more: Any
) -> Generation:
    """Validate a request body for a served run. Raises APIError that names the field at fault."""
    if not served.writes:
        raise APIError(400, f"{served.name} does not write text; use /v1/images/generations", "model")
    param = "messages" if "messages" in type(body).model_fields else "prompt"
    for prompt in prompts:
        served.check_prompt(prompt, param)
    n, wanted = body.n or 1, dict(body.strategy or {})
    check_shape(wanted)
    kind = wanted.get("kind", "autoregressive" if served.engine is not None else None)
    alike = kind == "autoregressive" and served.engine is not None
    longest = served.context if most is None and alike else most  # default: until the context is full
    fields = strategy_fields(body, longest)
    if not alike and served.divided:
        raise APIError(400, f"strategy: given {kind!r}, but this model is served with autoregressive alone", "strategy")
    if kind is not None and kind != "autoregressive":
        known: Any = StrategyConfig.find(kind)
        for field_name in fields:
            if known is not None and field_name not in known.model_fields:
                raise APIError(400, f"{field_name}: the strategy {kind!r} has no such field", field_name)
    try:
        drawing = served.run.drawing(fields={**({"kind": kind} if kind else {}), **fields, **wanted})
        drawing.recipe.strategy.check_samples(n)
    except SanbuError as error:
        raise APIError(400, str(error), "strategy" if wanted else None) from None
    check_limits(drawing.recipe.strategy, served.run.recipe.strategy, n * len(prompts))
    made = Generation(served, prompts, n, seed_or_random(body.seed), drawing, alike, **more)
    made.seeded = body.seed is not None
    made.presence, made.frequency = body.presence_penalty or 0.0, body.frequency_penalty or 0.0
    made.bias = bias_by_token(served, body.logit_bias or {})
    check_engine_fields(made)
    check_scores(made)
    return made


def check_engine_fields(made: Generation) -> None:
    """Raise APIError for fields that only the engine supports: log-probabilities, penalties, response formats."""
    if made.batched:
        return  # the engine itself checks the ids
    size = made.served.run.recipe.data.space().vocabulary
    strange = next((token for prompt in made.prompts for token in prompt if not 0 <= token < size), None)
    if strange is not None:
        raise APIError(400, f"there is no token {strange}; allowed: 0 to {size - 1}", "prompt")
    given = {
        "logprobs": made.top is not None,
        "presence_penalty": made.presence,
        "frequency_penalty": made.frequency,
        "logit_bias": made.bias,
        "response_format": made.grammar is not None,
    }
    for name, value in given.items():
        if value:
            raise APIError(400, f"{name} needs the strategy 'autoregressive'", name)


def check_scores(made: Generation) -> None:
    """Raise APIError for echoed prompts with too many log-probabilities to be held in memory."""
    entries = made.prompt_tokens * made.n * ((made.top or 0) + 1)
    if made.scored and entries > ENTRIES:
        raise too_many_entries(entries)


def too_many_entries(entries: int) -> APIError:
    """The error of an answer that is too large because of its log-probabilities."""
    line = f"logprobs: {entries:,} in one answer (tokens times alternatives), allowed: {ENTRIES:,}"
    return APIError(400, f"{line}; lower n, max_tokens or the number of alternatives, or stream", "logprobs")


def seed_or_random(seed: int | None) -> int:
    """The given seed, or a random one."""
    return random.SystemRandom().randrange(1 << 48) if seed is None else seed % (1 << 62)


def bias_by_token(served: HostedRun, bias: dict[str, float]) -> dict[int, float]:
    """logit_bias by token id."""
    size = served.run.recipe.data.space().vocabulary
    for token in bias:
        if not token.isascii() or not token.isdigit() or len(token) > 10 or int(token) >= size:
            raise APIError(400, f"logit_bias: there is no token {token[:20]!r}; allowed: 0 to {size - 1}", "logit_bias")
    return {int(token): value for token, value in bias.items()}


def answer_grammar(kind: str, schema: dict[str, Any] | None, served: HostedRun, param: str) -> Grammar | None:
    """The grammar of a response_format, None for plain text. Raises APIError before any token is generated."""
    if kind == "text":
        return None
    if kind == "json_schema" and schema is None:
        raise APIError(400, f"{param}: json_schema needs a schema", param)
    return compile_schema(served, {"type": "object"} if schema is None else schema, param)


def compile_schema(served: HostedRun, schema: dict[str, Any], param: str) -> Grammar:
    """The grammar of a schema. Raises APIError if it is invalid, or if the run does not support structured output."""
    if served.engine is None:
        raise APIError(400, f"{param}: {served.name} does not support structured output; leave it out", param)
    try:
        return served.grammars.schema(schema)
    except (SanbuError, ImportError) as error:
        raise APIError(400, f"{param}: {error}", param) from None


LINE_SEPARATORS = {ord(mark): f"\\u{ord(mark):04x}" for mark in "\x85\u2028\u2029"}


def compact(content: Any) -> str:
    """JSON on one line, without spaces. Characters at which str.splitlines breaks are escaped."""
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")).translate(LINE_SEPARATORS)
