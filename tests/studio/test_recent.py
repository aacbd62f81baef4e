"""What a chat in the page sends of a long conversation."""

from types import SimpleNamespace

import pytest

from sanbu.codecs.chat import ChatCodec, Turns
from sanbu.codecs.tokenizer import Byte


def test_the_page_leaves_out_the_oldest_turns():
    """As the terminal does: what the context cannot hold is not sent, but the last question always is."""
    pytest.importorskip("gradio")
    from sanbu.studio.answering import fitting

    codec = ChatCodec(Byte().build(()), Turns())
    hosted = SimpleNamespace(run=SimpleNamespace(codec=codec), context=160)
    talk = [{"role": role, "content": "x" * 20} for role in ("user", "assistant") * 5][:-1]
    sent = fitting(hosted, talk, 64)
    assert 1 < len(sent) < len(talk) and sent == talk[-len(sent) :] and sent[0]["role"] == "user"
    assert len(codec.template.ask(sent)) <= 120
    hosted.run.codec, hosted.encode_chat = object(), lambda messages: [0] * 30 * len(messages)
    assert fitting(hosted, talk, 64) == talk[-3:]  # a base run: 90 of the 120 tokens that leave room for an answer
