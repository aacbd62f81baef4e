"""Kneser-Ney n-grams: by hand, by enumeration, against nltk and kenlm where they are installed."""

import itertools
import math

import pytest
import torch

from sanbu.config import SanbuError
from sanbu.files import read_tensors, weights, write_tensors
from sanbu.models.tokens.ngram import FALLBACK, NGram, discounts
from sanbu.run import Run
from sanbu.space import IGNORED, Space
from sanbu.strategies.autoregressive import Autoregressive
from sanbu.testing import check_strategy

SPACE = Space((8,), 5, end=0)
DOCUMENTS = ("0123412134", "0121", "0", "04433221", "0121343412")  # each begins with the end token, 0


def rows(documents=DOCUMENTS):
    """All documents in one row, and the end token after the last."""
    stream = torch.tensor([int(c) for c in "".join(documents) + "0"])
    starts = stream[:-1] == 0
    time = torch.arange(len(starts))
    positions = time - time.where(starts, 0).cummax(0).values
    return {"tokens": stream[None, :-1], "targets": stream[None, 1:], "positions": positions[None]}


def fitted(order=3, batch=None, space=SPACE):
    model = NGram(order=order).build(space)
    model.fit(batch or rows())
    return model


def law(model, text):
    """p of each token after a text, which begins a document."""
    return model(torch.tensor([[int(c) for c in text]])).exp()[0, -1].double()


@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_every_law_sums_to_one(order):
    model = fitted(order)
    for length in range(1, 5):
        windows = torch.tensor(list(itertools.product(range(5), repeat=length)))
        known = torch.full((len(windows),), length)
        padded = torch.nn.functional.pad(windows, (max(0, order - 1 - length), 0))[:, -max(order - 1, 1) :]
        p = model.laws(padded, known)
        assert (p.sum(1) - 1).abs().max() < 1e-12 and p.min() > 0


def test_unigrams_are_continuation_counts_by_hand():
    """aab, aab: 1 stands after 0 and 1, 2 after 1, and 0 after 2: 2, 1 and 1 of 4 continuations; the discounts fall
    back to 0.5, 1 and 1.5."""
    model = fitted(2, rows(("0112", "0112")))
    order = model.orders[0]
    assert order.keys.tolist() == [0, 1, 2]
    expected = torch.tensor([1 - 0.5, 2 - 1.0, 1 - 0.5], dtype=torch.double) / 4
    torch.testing.assert_close(order.probabilities, expected)
    assert order.backoff.item() == pytest.approx((0.5 + 1.0 + 0.5) / 4)
    bigram = 1 + 5 * 1  # 1 after 1, met twice; histories: 1 was followed by 1 twice and by 2 twice
    place = model.orders[1].keys.tolist().index(bigram)
    assert model.orders[1].probabilities[place].item() == pytest.approx((2 - 1.0) / 4)


def test_discounts_of_chen_and_goodman():
    counts = torch.tensor([1] * 10 + [2] * 4 + [3] * 2 + [4])
    y = 10 / 18
    assert discounts(counts) == pytest.approx((1 - 2 * y * 4 / 10, 2 - 3 * y * 2 / 4, 3 - 4 * y * 1 / 2))
    assert discounts(torch.tensor([2, 2, 3])) == FALLBACK


def test_with_one_discount_it_is_nltk(monkeypatch):
    """nltk knows one discount and leaves its unigrams plain, and so do we for once."""
    lm = pytest.importorskip("nltk.lm")
    from nltk.util import everygrams

    text = "0123412134012143443221012134341240"
    peer = lm.KneserNeyInterpolated(3, discount=0.4)
    peer.fit([everygrams(list(text), max_len=3)], vocabulary_text=list("01234"))
    calls = []

    def one_discount(counts):
        calls.append(len(counts))
        return (0.0,) * 3 if len(calls) == 1 else (0.4,) * 3

    monkeypatch.setattr("sanbu.models.tokens.ngram.discounts", one_discount)
    stream = torch.tensor([[int(c) for c in text]])
    model = fitted(3, {"tokens": stream[:, :-1], "targets": stream[:, 1:]}, Space((8,), 5))
    model.orders[0].backoff.zero_()
    for history in itertools.product("01234", repeat=2):
        if "".join(history) not in text[:-1]:
            continue
        windows = torch.tensor([[int(c) for c in history]])
        p = model.laws(windows, torch.tensor([2]))[0]
        expected = torch.tensor([peer.score(word, history) for word in "01234"], dtype=torch.double)
        torch.testing.assert_close(p, expected, rtol=1e-12, atol=1e-12)


def test_order_n_learns_a_chain_of_order_n_minus_1():
    """The loss on held-out text of a Markov chain approaches its entropy rate, known in closed form."""
    generator = torch.Generator().manual_seed(0)
    table = torch.distributions.Dirichlet(torch.ones(3)).sample((3,)).double()
    stationary = torch.linalg.matrix_power(table, 200)[0]
    entropy = -(stationary[:, None] * table * table.log()).sum().item()
    stream = [0]
    for _ in range(60_000):
        stream.append(int(torch.multinomial(table[stream[-1]], 1, generator=generator)))
    whole = torch.tensor([stream])
    model = fitted(2, {"tokens": whole[:, :50_000], "targets": whole[:, 1:50_001]}, Space((8,), 3))
    held_out = whole[:, 50_000:]
    nats = -model(held_out[:, :-1]).gather(2, held_out[:, 1:, None])
    # the standard error of 10,000 terms of variance below 1 is below 0.01
    assert abs(float(nats.mean()) - entropy) < 0.03


def test_documents_do_not_touch():
    model, batch = fitted(4), rows()
    found = model(batch["tokens"], batch["positions"])[0]
    starts = (batch["positions"][0] == 0).nonzero()[:, 0].tolist() + [found.shape[0]]
    for first, last in itertools.pairwise(starts):
        assert model(batch["tokens"][:, first:last])[0].equal(found[first:last])


def test_a_row_read_in_parts_gives_what_it_gives_whole():
    model, row = fitted(4), rows()["tokens"][:, :9]
    cache = model.cache(1, 9)
    parts = [model(part, torch.zeros_like(part), cache) for part in row.split([2, 1, 4, 2], 1)]
    assert torch.cat(parts, 1).equal(model(row))


def test_prompts_of_unequal_length_are_drawn_as_each_alone():
    condition = {"tokens": rows()["tokens"][:, :8].expand(3, 8).clone(), "length": torch.tensor([1, 8, 3])}
    check_strategy(Autoregressive(max_tokens=10, prefill=3), {"model": fitted(4)}, SPACE, condition)


def test_rows_without_a_target_teach_nothing():
    whole = rows()
    cut = {**whole, "targets": whole["targets"].clone()}
    cut["targets"][:, 20:] = IGNORED
    short = {name: tensor[:, :20] for name, tensor in whole.items()}
    ours, theirs = weights(fitted(3, cut)), weights(fitted(3, short))
    assert all(ours[name].equal(theirs[name]) for name in ours)


def test_too_little_text_is_one_line():
    with pytest.raises(SanbuError, match=r"model.order: given 6, but no document of the text has so many tokens"):
        fitted(6, rows(("01", "02")))


def test_weights_survive_a_file_of_another_size(tmp_path):
    from sanbu.files import load_weights

    model, other = fitted(3), NGram(order=3).build(SPACE)
    write_tensors(tmp_path / "model.safetensors", weights(model))
    load_weights(other, read_tensors(tmp_path / "model.safetensors"), tmp_path)
    assert law(other, "012").equal(law(model, "012"))


def test_the_recipe_counts_in_one_step_and_draws(tmp_path):
    from sanbu import recipes
    from sanbu.loop import train

    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat. the dog sat on the log. " * 200, encoding="utf-8")
    recipe = recipes.ngram(path=str(text), alphabet="".join(sorted(set(text.read_text())))).change("data.context=64")
    run = train(recipe, tmp_path / "run", watchers=[])
    assert Run.open(run.folder).generate("the c", temperature=0.0, max_tokens=12) == "at sat on th"
    assert run.evaluate()["loss"] < 0.2
    assert math.isclose(recipe.model.build(recipe.data.space())(torch.zeros(1, 1).long()).exp().sum(), 1, rel_tol=1e-6)


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """A run of n-grams of order 4 on a little text of several documents."""
    from sanbu import recipes
    from sanbu.loop import train

    folder = tmp_path_factory.mktemp("ngram")
    (folder / "texts").mkdir()
    for number in range(6):
        (folder / "texts" / f"{number}.txt").write_text(f"a <b> c{number} \tthe cat, the dog. " * 20, encoding="utf-8")
    alphabet = "".join(sorted({c for path in folder.glob("texts/*.txt") for c in path.read_text(encoding="utf-8")}))
    recipe = recipes.ngram(path=str(folder / "texts"), alphabet=alphabet).change("data.context=1024", "model.order=4")
    return train(recipe.change(sample_every=0, evaluate_every=0), folder / "run", watchers=[])


def test_arpa_out_and_in_gives_the_same_laws(counted, tmp_path):
    from sanbu.interop import arpa

    path = counted.export("arpa", tmp_path / "model.arpa")
    again = arpa.import_run(path, tmp_path / "again")
    tokens = counted.recipe.data.build().batch(0, 1)["tokens"][:, :300]
    torch.testing.assert_close(again.model(tokens), counted.model(tokens), rtol=1e-5, atol=1e-5)
    assert again.generate("a <b", temperature=0.0, max_tokens=9) == counted.generate(
        "a <b", temperature=0.0, max_tokens=9
    )


def test_arpa_scores_are_kenlms(counted, tmp_path):
    kenlm = pytest.importorskip("kenlm")
    path = counted.export("arpa", tmp_path / "model.arpa")
    peer, alphabet = kenlm.Model(str(path)), counted.recipe.data.tokenizer.alphabet
    from sanbu.interop.arpa import word_of

    text = "the cat, a <b> c3"
    ids = torch.tensor([[len(alphabet), *(alphabet.index(c) for c in text)]])
    ours = counted.model(ids[:, :-1])[0].gather(1, ids[0, 1:, None])[:, 0] / math.log(10)
    theirs = [score for score, _, _ in peer.full_scores(" ".join(word_of(c.encode()) for c in text), eos=False)]
    torch.testing.assert_close(ours, torch.tensor(theirs), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("\\data\\\nngram 1=1\n\n\\1-grams:\nx\ta\n\\end\\\n", r"line 5: 'x\\ta' is no 1-gram"),
        ("\\data\\\nngram 1=3\n\n\\1-grams:\n-1\ta\n\\end\\\n", r"counts \[3\] n-grams, but the file has \[1\]"),
        ("\\data\\\nngram 1=1\n\n\\1-grams:\n-1\tword\n\\end\\\n", "n-grams of words \\('word'\\) cannot be imported"),
    ],
)
def test_a_damaged_arpa_file_is_one_line(text, said, tmp_path):
    from sanbu.interop import arpa

    (tmp_path / "bad.arpa").write_text(text, encoding="utf-8")
    with pytest.raises(SanbuError, match=said):
        arpa.import_run(tmp_path / "bad.arpa", tmp_path / "run")


def counted_by_hand(occurrences, order, given):
    """Kneser-Ney in dictionaries: {(length, gram): count} of all n-grams, with discounts given by length. Returns p."""
    longest = {gram: count for (length, gram), count in occurrences.items() if length == order and count}
    counts = {order: longest}
    for length in reversed(range(1, order)):
        found = {}
        for (size, gram), count in occurrences.items():
            if size == length and count and gram[0] == 0 and length > 1:
                found[gram] = count
        for gram in counts[length + 1]:
            if not (length > 1 and gram[1] == 0):
                found[gram[1:]] = found.get(gram[1:], 0) + 1
        counts[length] = found

    def p(token, history):
        if history is None:
            return 1 / 5
        length = len(history) + 1
        below = p(token, history[1:] if history else None)
        same = {gram: count for gram, count in counts[length].items() if gram[:-1] == history}
        total = sum(same.values())
        if not total:
            return below
        discount = lambda count: (0.0, *given[length])[min(count, 3)]
        left = sum(map(discount, same.values())) / total
        count = same.get((*history, token), 0)
        return (count - discount(count)) / total + left * below

    return p


def occurrences_of(documents, order):
    """How often each n-gram stands in the documents, each followed by the end token."""
    found = {}
    for document in documents:
        stream = [*map(int, document), 0]
        for length in range(1, order + 1):
            for place in range(max(1, length - 1), len(stream)):
                gram = tuple(stream[place - length + 1 : place + 1])
                found[length, gram] = found.get((length, gram), 0) + 1
    return found


@pytest.mark.parametrize("left_out", [False, True])
def test_laws_equal_dictionaries_with_and_without_one_occurrence(left_out):
    """Every place of the documents: the law of the counts, and that of the counts without its own n-gram."""
    order, model = 3, fitted(3)
    given = {length: tuple(each.discounts.tolist()) for length, each in enumerate(model.orders, 1)}
    whole = occurrences_of(DOCUMENTS, order)
    for document in DOCUMENTS:
        stream = [*map(int, document), 0]
        for place in range(1, len(stream)):
            history = tuple(stream[max(0, place - order + 1) : place])
            counted, out = dict(whole), None
            if left_out:
                gram = (*history, stream[place])
                counted[len(gram), gram] -= 1
                out = torch.tensor([stream[place]])
            p = counted_by_hand(counted, order, given)
            window = torch.tensor([[0] * (order - 1 - len(history)) + list(history)])
            found = model.laws(window, torch.tensor([len(history)]), out)[0]
            expected = [p(token, history) for token in range(5)]
            torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double), rtol=1e-12, atol=1e-12)
            assert float(found.sum()) == pytest.approx(1, abs=1e-12)


def mixed():
    """A mixture of fitted n-grams and a small network, without any zero weight, in evaluation mode."""
    from sanbu.models.tokens.mixture import Mixed
    from sanbu.models.tokens.recurrent import LSTM
    from sanbu.testing import build_seeded, fill

    network = build_seeded(lambda: LSTM(width=8).build(SPACE))
    model = Mixed(fitted(3), network, 8, 3)
    fill(model)
    return model.eval()


def test_a_mixture_lies_between_its_parts():
    """g p_ngram + (1 - g) p_network sums to 1, and a gate that is open or closed gives one of the two."""
    model, tokens = mixed(), rows()["tokens"][:, :9]
    parts = [model.ngram(tokens), model.network(tokens).log_softmax(-1)]
    assert (model(tokens).exp().sum(-1) - 1).abs().max() < 1e-6
    model.gate_hidden.data.zero_(), model.gate_order.data.zero_()
    for bias, part in zip((40.0, -40.0), parts, strict=True):
        model.gate_bias.data.fill_(bias)
        torch.testing.assert_close(model(tokens), part, rtol=1e-5, atol=1e-5)


def test_a_mixture_is_drawn_alone_as_in_a_batch():
    condition = {"tokens": rows()["tokens"][:, :8].expand(3, 8).clone(), "length": torch.tensor([1, 8, 3])}
    check_strategy(Autoregressive(max_tokens=10, prefill=3), {"model": mixed()}, SPACE, condition)


def test_in_training_a_mixture_leaves_each_n_gram_out_of_its_counts():
    model, batch = mixed(), rows(("0123412134",))
    model.gate_hidden.data.zero_(), model.gate_order.data.zero_()
    model.gate_bias.data.fill_(40.0)
    windows, known = model.ngram.read(batch["tokens"], batch["positions"], None)
    expected = model.ngram.laws(windows[:-1], known[:-1], batch["tokens"][0, 1:]).log().float()
    found = model.train()(batch["tokens"], batch["positions"])
    torch.testing.assert_close(found[0, :-1], expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        found[0, -1], model.network(batch["tokens"])[0, -1].log_softmax(-1), rtol=1e-4, atol=1e-4
    )


def test_the_mixture_recipe_begins_from_the_counts_of_its_parent(counted, tmp_path):
    from sanbu import recipes
    from sanbu.loop import train

    recipe = recipes.mixture(ngram=str(counted.folder)).change("data.context=32", steps=3, batch=2)
    recipe = recipe.change("model.network.width=16", sample_every=0, evaluate_every=0)
    assert recipe.model.order == 4
    run = train(recipe, tmp_path / "run", watchers=[])
    ours, theirs = weights(run.model), weights(counted.model)
    assert all(ours[f"ngram.{name}"].equal(tensor) for name, tensor in theirs.items())
    assert Run.open(run.folder).generate("the c", temperature=0.0, max_tokens=5) == "at, t"
