"""Streaming text: whole characters, no stop text, nothing lost, for any split into tokens."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sanbu.codecs.tokenizer import ByteTokenizer
from sanbu.serve.request import Event
from sanbu.serve.streaming import Answer


class Split:
    """A tokenizer whose tokens are the pieces of one text, cut at any byte."""

    def __init__(self, pieces):
        self.pieces = pieces


@example(b"<|<", [1], ["|", "<|<"])
@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.text(alphabet="aé大🙂 <|", max_size=24).map(str.encode), st.binary(max_size=24)),
    st.lists(st.integers(1, 5), min_size=1, max_size=24),
    st.lists(st.text(alphabet="aé大🙂<|", min_size=1, max_size=4), max_size=3),
)
def test_deltas_are_the_text_up_to_the_first_stop(content, sizes, stop):
    pieces, at = [], 0
    while at < len(content):
        pieces.append(content[at : at + sizes[len(pieces) % len(sizes)]])
        at += len(pieces[-1])
    answer, texts, words = Answer(0, Split(pieces), stop), [], []
    for event in [*(Event(token, -1.0) for token in range(len(pieces))), Event(finish="length")]:
        if answer.finish is None:
            piece = answer.receive(event)
            texts.append(piece.text)
            words += piece.tokens
    whole = content.decode("utf-8", "replace")
    found = [(whole.find(text) + len(text), whole.find(text)) for text in stop if text in whole]
    wanted = whole[: min(found)[1]] if found else whole  # the first complete stop text, for any cut
    assert "".join(texts) == wanted
    assert answer.finish == ("stop" if found else "length")
    spelt = b"".join(word.spelling for word in words)
    assert spelt == content if not found else content.startswith(spelt)
    if not found:
        assert [word.token for word in words] == list(range(len(pieces)))
    else:
        try:
            content.decode("utf-8")
        except UnicodeDecodeError:
            return
        assert wanted.encode().startswith(spelt), "a token of the stop text was told"


def test_tokens_are_held_until_their_character_is_whole():
    answer = Answer(0, ByteTokenizer(), ())
    told = [answer.receive(Event(token)) for token in "é".encode()]
    assert [(piece.text, len(piece.tokens)) for piece in told] == [("", 0), ("é", 2)]
