"""Token ids of texts and back, with the paths of vLLM, which lm-evaluation-harness asks for (tokenizer_backend=remote).

`model` may be left out where only one run that reads text is served.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from sanbu.codecs.tokenizer import decode
from sanbu.serve.body_route import BodyRoute
from sanbu.serve.conversation import conversation
from sanbu.serve.delivery import find_run, prepare
from sanbu.serve.errors import ERRORS, APIError
from sanbu.serve.hosted_run import HostedRun
from sanbu.serve.legacy_logprobs import TokenNames
from sanbu.serve.schemas import DetokenizeBody, TokenizeBody

routes = APIRouter(route_class=BodyRoute)


@routes.post("/tokenize", responses=ERRORS)
async def tokenize(body: TokenizeBody, request: Request) -> dict[str, Any]:
    """Token ids of a text, or of a conversation after the chat template."""
    served = reading_run(request, body)
    if (body.prompt is None) == (body.messages is None):
        raise APIError(400, "give either prompt or messages", "prompt")
    ids = await prepare(request, lambda: ids_of(served, body))
    return {"tokens": ids, "count": len(ids), "max_model_len": served.context}


@routes.post("/detokenize", responses=ERRORS)
async def detokenize(body: DetokenizeBody, request: Request) -> dict[str, Any]:
    """The text of token ids; special tokens have none."""
    served = reading_run(request, body)
    return {"prompt": await prepare(request, lambda: decode(served.codec.tokenizer, body.tokens))}


@routes.get("/tokenizer_info", responses=ERRORS)
async def tokenizer_info(request: Request, model: str | None = None) -> dict[str, Any]:
    """The kind, size and special tokens of a tokenizer, by name."""
    served = reading_run(request, TokenizeBody(model=model))
    tokenizer = served.codec.tokenizer
    names = TokenNames(tokenizer)
    special = {"bos_token": tokenizer.start, "eos_token": tokenizer.end}
    named = {what: None if token is None else names.name(token) for what, token in special.items()}
    size = served.run.recipe.data.space().vocabulary
    return {"tokenizer_class": type(tokenizer).__name__, "vocab_size": size, **named, "chat_template": None}


def reading_run(request: Request, body: TokenizeBody | DetokenizeBody) -> HostedRun:
    """The run that the body names, or the only one that reads text. Raises APIError."""
    if body.model is None:
        names = request.app.state.service.names(writes=True)
        if len(names) != 1:
            raise APIError(400, f"model: not given, allowed: {', '.join(names)}", "model")
        body = body.model_copy(update={"model": names[0]})
    served = find_run(request, body)
    if not served.writes:
        raise APIError(400, f"{served.name} does not read text", "model")
    return served


def special_tokens(served: HostedRun) -> dict[str, int]:
    """The start and the end token by name."""
    tokenizer = served.codec.tokenizer
    names = TokenNames(tokenizer)
    return {names.name(token): token for token in (tokenizer.start, tokenizer.end) if token is not None}


def ids_of(served: HostedRun, body: TokenizeBody) -> list[int]:
    """Token ids of a text, with the start token unless that is not wanted, or of a conversation.

    Without the start token, the name of a special token as `tokenizer_info` tells it is that token.
    """
    if body.prompt is None:
        return served.encode_chat(conversation(body.messages or ()))
    if body.add_special_tokens is False:
        named = special_tokens(served)
        return [named[body.prompt]] if body.prompt in named else served.encode_text(body.prompt)
    return served.encode_prompt(body.prompt)
