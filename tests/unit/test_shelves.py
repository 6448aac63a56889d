"""Catalogs on shelves: products of a shelf, shelves asked for a message, and the choice of the answer."""

import numpy as np
import pytest
import shelves
import tiny
from runs import BASKET, CART

from intent.engine.automaton import Automaton
from intent.engine.batch import BatchClassifier
from intent.engine.decode import Walk
from intent.engine.shelved import RETRIEVER, Shelved, surest
from intent.errors import ConfigError
from intent.retrieve.index import Index, cut
from intent.retrieve.route import NOWHERE, Asks, route
from intent.retrieve.vectors import words
from intent.task.prompt import Prompt


def kept(index: Index) -> list[set[str]]:
    return [set(index.catalog(shelf)) for shelf in range(len(index))]


def test_every_product_is_on_a_shelf_of_its_own_and_no_shelf_is_too_large():
    index = shelves.index(core=20, border=4)
    assert set.union(*kept(index)) == set(shelves.NAMES)
    assert max(map(len, kept(index))) <= 24
    assert all(index.holds(shelf, number) for number, shelf in enumerate(index.shelf.tolist()))
    assert np.bincount(index.shelf).max() <= 20


def test_names_that_nothing_tells_apart_are_cut_all_the_same():
    names = [f"gift card {'!' * n}" for n in range(1, 500)]
    pieces = list(cut(names, shelves.retriever().vectors.embed(names), shelves.retriever().cells, 50))
    assert sorted(np.concatenate(pieces).tolist()) == list(range(len(names)))
    assert max(map(len, pieces)) <= 50


def test_one_product_more_changes_few_shelves():
    names = [f"{name} {model}" for name in shelves.NAMES for model in range(20)]
    before = kept(Index.build(names, shelves.retriever(), 40, 8))
    after = kept(Index.build([*names, "purple kettle small 7"], shelves.retriever(), 40, 8))
    changed = [shelf for shelf in after if shelf not in before]
    assert len(after) > 80
    assert len(changed) <= 8


def test_an_index_read_back_routes_alike(tmp_path):
    index = shelves.index()
    index.write(tmp_path)
    read = Index.read(tmp_path)
    messages = [f"please add one {name}" for name in shelves.NAMES]
    assert route(read, messages).shelves.tolist() == route(index, messages).shelves.tolist()
    assert kept(read) == kept(index)
    assert read.keys == index.keys


def test_a_message_is_asked_about_the_shelf_of_its_product():
    index, asks = shelves.index(), route(shelves.index(), shelves.NAMES)
    on = {int(row) for row, shelf in zip(asks.rows, asks.shelves, strict=True) if index.holds(shelf, row)}
    assert on == set(range(len(shelves.NAMES)))
    assert len(asks) < 2 * len(shelves.NAMES)


def test_of_two_products_in_one_message_both_shelves_are_asked():
    index = shelves.index()
    one, other = "red shoe small", "blue hammer large"
    asks = route(index, [f"not the {one} oh no no no rather the {other}"])
    numbers = [shelves.NAMES.index(name) for name in (one, other)]
    assert all(any(index.holds(shelf, number) for shelf in asks.shelves) for number in numbers)


def test_what_shares_a_batch_changes_no_route():
    index, messages = shelves.index(), [f"give me {name} now" for name in shelves.NAMES]
    together = route(index, messages)
    for row, message in enumerate(messages):
        assert route(index, [message]).shelves.tolist() == together.shelves[together.rows == row].tolist()


@pytest.mark.parametrize("message", ["", "?!", "🙏"])
def test_a_message_without_words_is_asked_about_nothing_or_where_there_is_no_none_about_some_shelf(message):
    assert route(shelves.index(), [message]).shelves.tolist() == [NOWHERE]
    assert route(shelves.index(), [message], nothing=None).shelves.tolist() == [0]


def test_accents_case_and_digits_of_other_scripts_are_read_alike():
    assert words("Crème BRÛLÉE ٢") == words("creme brulee 2")


def test_each_prompt_is_used_once_for_all_its_messages():
    classifier = shelves.shelved()
    predictions = classifier.classify([f"please add one {name}" for name in shelves.NAMES])
    assert [prediction.intent["product"] for prediction in predictions] == shelves.NAMES
    prompts = [prompt for prompt, _ in classifier.classifier.asked]
    assert len(prompts) == len(set(prompts)) <= len(classifier.index)


def test_a_message_near_no_product_is_none_with_the_retriever_as_variant():
    [prediction] = shelves.shelved().classify(["?!"])
    assert prediction.intent == {"action": "none", "product": None, "quantity": None}
    assert (prediction.variant, prediction.message) == (RETRIEVER, "?!")


def test_a_product_counts_before_none_and_then_the_surer():
    asks = Asks(np.array([0, 0, 1, 1, 2, 2, 3]), np.arange(7), np.array([1, 0, 1, 0, 1, 0, 1], bool))
    named = np.array([False, True, True, True, False, False, False])
    fine = np.array([True, True, True, True, True, False, True])
    confidence = np.array([0.99, 0.4, 0.5, 0.6, 0.1, 0.9, 0.2])
    assert surest(asks, fine, named, confidence).tolist() == [1, 3, 4, 6]


def test_the_first_shelf_counts_where_two_are_as_sure():
    asks = Asks(np.array([0, 0]), np.array([4, 2]), np.array([True, False]))
    same = np.array([True, True]), np.array([True, True]), np.array([0.5, 0.5])
    assert surest(asks, *same).tolist() == [0]


def test_messages_that_mean_lists_are_refused():
    with pytest.raises(ConfigError, match="160 products.*are lists"):
        Shelved(shelves.NamingClassifier(), shelves.index(), BASKET)
    Shelved(shelves.NamingClassifier(), shelves.index(), CART)


class BlindForward:
    """A model whose logits depend on the message and on the answer so far, but not on the prompt.

    `prompts`: the number of prompts.
    """

    lanes, max_num_seqs, max_seq_len, usual, capacity, max_tokens = 1, 8, 512, 512, 1 << 20, 1 << 20
    shares, computed = False, 0

    def __init__(self, vocabulary: int):
        self.vocabulary, self.sequences, self.prompts = vocabulary, {}, 0

    def begin(self, prefix) -> None:
        self.prompts += 1

    def extend(self, feeds, tokens, lane=0):
        for slot, feed in feeds:
            self.sequences[slot] = [*self.sequences.get(slot, ()), *feed]
        drawn = [np.random.default_rng(self.sequences[slot]).normal(size=self.vocabulary) * 3 for slot, _ in feeds]
        return lambda rows, wanted: np.array(drawn)[np.ix_(rows, wanted)]

    def release(self, slot, lane=0) -> None:
        del self.sequences[slot]


@pytest.mark.parametrize("output_format", ["json", "compact", "entity_first"])
@pytest.mark.parametrize("offset", [0.0, -1.4, 2.0])
def test_the_offset_of_nothing_means_the_same_on_shelves_as_in_one_prompt(tmp_path, monkeypatch, output_format, offset):
    """A message is `none` if it is `none` on each of its shelves, which equals `none` with the whole catalog."""
    names = [f"{name} {model}" for name in ("red shoe", "blue hammer", "green lamp") for model in range(4)]
    tokenizer = tiny.write_tokenizer(tmp_path, tuple(names))
    index, messages = shelves.index(tuple(names), 4, 0), [f"message {n}" for n in range(200)]

    def classifier(names) -> BatchClassifier:
        prompt, walk = Prompt(tiny.CART, names), lambda automaton, rows: Walk(automaton, len(rows), (1.5, 1.5, 1.5), offset)
        automaton = Automaton(tiny.CART, names, tokenizer, output_format)
        forward = BlindForward(tokenizer.get_vocab_size())
        return BatchClassifier("blind", forward, tokenizer, prompt, automaton, 64, walk=walk)

    every = np.arange(len(messages)).repeat(len(index))
    asks = Asks(every, np.tile(np.arange(len(index)), len(messages)), np.arange(len(every)) % len(index) == 0)
    monkeypatch.setattr(Shelved, "route", lambda *_: asks)
    shelved = Shelved(classifier(names[:1]), index, tiny.CART)
    whole = [prediction.intent["action"] == "none" for prediction in classifier(names).classify(messages)]
    assert [prediction.intent["action"] == "none" for prediction in shelved.classify(messages)] == whole
    assert shelved.classifier.forward.prompts == len(index) >= 3 and 0 < sum(whole) < len(messages)
