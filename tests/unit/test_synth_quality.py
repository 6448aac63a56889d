"""The quality checks detect bad data and pass good data."""

from dataclasses import replace

from intent.dataset.deduplicate import deduplicate, leaks
from intent.dataset.example import Example, from_table, to_table
from intent.synth.card import card
from intent.synth.chart import picture
from intent.synth.contradictions import contradictions
from intent.synth.corpus import Corpus
from intent.task.catalog import Catalog
from intent.task.schema import Choice, Count, Entity, IntentSchema

CART = IntentSchema("cart", "x", (Choice("action", ("add", "remove", "none"), ("none",)), Entity("product"), Count("quantity")))
CATALOG = {"": ("Whole Milk 1L", "Free Range Eggs", "27 inch Monitor")}
ADD_MILK = {"action": "add", "product": "Whole Milk 1L", "quantity": 2}


def example(message: str, intent: dict = ADD_MILK, language: str = "en", catalog: str = "") -> Example:
    return Example("1", message, intent, language, catalog)


def reasons(message: str, language: str = "en", **intent) -> list[str]:
    return [why for _, why in contradictions([example(message, {**ADD_MILK, **intent}, language)], CATALOG)]


def test_messages_that_differ_in_case_accents_and_punctuation_are_one():
    unique = deduplicate([example("Añade 2 leches!"), example("anade 2 leches"), example("añade 3 leches")])
    assert [e.message for e in unique.examples] == ["Añade 2 leches!", "añade 3 leches"] and unique.repeated == 1


def test_the_same_message_with_another_label_is_counted_apart():
    unique = deduplicate([example("add milk"), example("Add milk!", {**ADD_MILK, "quantity": 1})])
    assert len(unique.examples) == 1 and (unique.repeated, unique.contradicting) == (0, 1)


def test_the_same_message_about_another_catalog_stays():
    assert len(deduplicate([example("add milk"), example("add milk", catalog="c1")]).examples) == 2


def test_evaluation_messages_are_found_also_when_slightly_changed():
    evaluation = ["Could you please put two bottles of milk in my cart", "no milk"]
    leaking = [example("could you PLEASE put two bottles of milk in my cart!!"), example("No milk.")]
    near = example("could you please put two bottles of milk in my cart then")
    fine = [example("could you please take two bottles of wine out"), example("milk")]
    assert leaks([*leaking, near, *fine], evaluation) == [*leaking, near]


def test_rules_contradict_a_wrong_quantity():
    assert reasons("two milks please") == [] and reasons("zwei Milch bitte", "de") == []
    assert reasons("three milks please") == ["the message says [3]"]
    assert reasons("add milk") == ["the message says no number"]
    assert reasons("a dozen eggs", product="Free Range Eggs", quantity=12) == []


def test_rules_contradict_a_wrong_product():
    assert reasons("add 2 free range eggs") == ["the message names 'Free Range Eggs'"]


def test_numbers_of_a_name_are_no_quantity():
    assert reasons("add a 27 inch monitor", product="27 inch Monitor", quantity=1) == []
    assert reasons("milk 1L, two of them") == []


def test_generated_labels_are_not_contradicted():
    languages = ["en", "de", "es", "fr", "it", "hr", "pt", "nl"]
    corpus = Corpus(CART, languages, 11)
    examples = corpus.examples(0, 3000)
    conflicts = list(contradictions(examples, corpus.catalogs(0, 3000)))
    assert len(conflicts) <= 3, conflicts
    assert deduplicate(examples).contradicting == 0


def test_a_changed_label_is_found_in_generated_messages():
    """The check detects most wrong quantities, here a label of 57 for a message with another number."""
    corpus = Corpus(CART, ["en", "it"], 5, Catalog.of(CATALOG[""]))
    clear = [e for e in corpus.examples(0, 600) if e.intent["product"] and not {"typo", "voice"} & set(e.phenomena)]
    wrong = [replace(e, intent={**e.intent, "quantity": 57}) for e in clear]
    assert len({e.id for e, _ in contradictions(wrong, CATALOG)}) > 0.6 * len(wrong)


def test_the_card_shows_counts_checks_and_samples():
    corpus = Corpus(CART, ["en", "hr"], 5, Catalog.of(CATALOG[""]))
    examples = corpus.examples(0, 300)
    text = card(examples, CATALOG, evaluation=[examples[0].message], title="Demo")
    assert text.startswith("# Demo") and "| Examples | 300 |" in text and "| hr |" in text
    assert "examples, of 1 messages" in text and examples[0].message in text and "typo" in text


def test_a_table_of_examples_gives_them_back():
    examples = Corpus(CART, ["fr"], 5).examples(0, 50)
    assert from_table(to_table(examples)) == examples


def test_the_chart_draws_every_phenomenon_and_escapes_names():
    import xml.etree.ElementTree as xml

    examples = Corpus(CART, ["en", "hr"], 5).examples(0, 400)
    hostile = replace(examples[0], phenomena=("<script>alert(1)</script>",), language="a&b")
    drawn = xml.fromstring(picture([*examples, hostile]))
    texts = {element.text for element in drawn.iter() if element.text}
    assert {name for e in examples for name in e.phenomena} <= texts
    assert {"<script>alert(1)</script>", "a&b", "hr", "en"} <= texts
    assert not [element for element in drawn.iter() if element.tag.endswith("script")]
