"""What a chat in the page sends of a long conversation."""

from types import SimpleNamespace

import pytest

from sanbu.codecs.chat import ChatCodec, Turns
from sanbu.codecs.tokenizer import Byte


def test_the_page_leaves_out_the_oldest_turns():
    """As the terminal does: what the context cannot hold is not sent, but the last question always is."""
    pytest.importorskip("gradio")
    from sanbu.studio.chat import fitting

    codec = ChatCodec(Byte().build(()), Turns())
    hosted = SimpleNamespace(run=SimpleNamespace(codec=codec), context=160)
    talk = [{"role": role, "content": "x" * 20} for role in ("user", "assistant") * 5][:-1]
    how = {"sampling": {"max_tokens": 64}}
    sent = fitting(hosted, talk, how)
    assert 1 < len(sent) < len(talk) and sent == talk[-len(sent) :] and sent[0]["role"] == "user"
    assert len(codec.template.ask(sent)) <= 120
    hosted.run.codec = object()
    assert fitting(hosted, talk, how) == talk
