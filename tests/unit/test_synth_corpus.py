"""Generated messages are reproducible and separate by split, and every label is valid and right."""

import pickle
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from random import Random

import pytest

from intent.errors import ConfigError
from intent.synth import corpus as corpus_module
from intent.synth import market
from intent.synth.corpus import BLOCK, Corpus, held_out
from intent.synth.language import available, load
from intent.synth.lexicon import Pool, departments, ideas, kinds
from intent.synth.phenomena import QUANTITY, SCENARIOS, SURFACE
from intent.synth.shelf import Product, Shelf, alike, given, ontology
from intent.task.catalog import Catalog
from intent.task.schema import Choice, Count, Entity, IntentSchema

CART = IntentSchema("cart", "x", (Choice("action", ("add", "remove", "none"), ("none",)), Entity("product"), Count("quantity")))
GROCERY = Catalog.of(
    ["Whole Milk 1L", "Skimmed Milk 1L", "Free Range Eggs", "Bananas", "Ground Coffee 250g", "27 inch Monitor", "Zorvex Lamp"]
)


def corpus(**options) -> Corpus:
    return Corpus(CART, options.pop("languages", available()), options.pop("seed", 3), **options)


def only(*names: str, **options) -> Corpus:
    """Return a corpus of the scenarios `names`, without surface phenomena."""
    off = {name: 0 for name in (*SCENARIOS, *SURFACE) if name not in names}
    on = {name: 1 for name in names}
    return corpus(phenomena={**off, **on, **options.pop("phenomena", {})}, **options)


@pytest.mark.parametrize("catalog", [None, GROCERY])
def test_examples_do_not_depend_on_how_the_work_is_divided(catalog):
    whole = corpus(catalog=catalog).examples(0, 3 * BLOCK)
    copy = pickle.loads(pickle.dumps(corpus(catalog=catalog)))
    pieces = [example for start in range(100, -1, -50) for example in copy.examples(start, start + 50)]
    by_id = {example.id: example for example in pieces}
    assert [by_id[e.id] for e in whole[:150] if e.id in by_id] == [e for e in whole[:150] if e.id in by_id]
    assert len({e.id for e in whole}) == len(whole)


def test_another_seed_gives_other_messages():
    messages = [{e.message for e in corpus(seed=seed).examples(0, 200)} for seed in (1, 2)]
    assert len(messages[0] & messages[1]) < 20


@pytest.mark.parametrize("split", ["train", "validation", "test", "all"])
def test_every_label_is_valid_for_the_catalog_it_names(split):
    sampled = corpus(split=split)
    catalogs = sampled.catalogs(0, 1000)
    for example in sampled.examples(0, 1000):
        assert CART.check(example.intent, catalogs[example.catalog]) == example.intent
        assert example.message == "\n".join(" ".join(line.split()) for line in example.message.splitlines()) != ""


def test_sampled_catalogs_have_the_promised_size_and_only_unique_names():
    catalogs = corpus().catalogs(0, 100 * BLOCK)
    assert len(catalogs) == 100
    assert sum(10 <= len(names) <= 60 for names in catalogs.values()) > 60 and max(map(len, catalogs.values())) > 150
    for names in catalogs.values():
        assert 5 <= len(names) <= 1000 and len({name.casefold() for name in names}) == len(names)
    assert len({name for names in catalogs.values() for name in names}) > 400


def test_most_catalogs_hold_the_products_of_one_kind_of_shop():
    pool, brands = Pool([name for name in ideas() if name not in kinds()]), frozenset()
    shelves = [market.sample(Random(seed), ["en"], pool, brands) for seed in range(200)]
    sold = [{ideas()[product.idea].department for product in shelf.products if product.idea} for shelf in shelves]
    assert sum(any(of <= set(shop) for shop in market.SHOPS) for of in sold) > 130
    assert sum(bool(of & set(market.SUPERMARKET)) for of in sold) > 80
    assert set().union(*sold) >= set(departments())


def test_templates_and_products_of_one_split_are_never_in_another():
    texts = [f"template {i}" for i in range(57)]
    sides = [set(held_out(texts, split)) for split in ("train", "validation", "test")]
    assert (
        sum(map(len, sides)) == 57 == len(held_out(texts, "all"))
        and set.union(*sides) == set(texts)
        and min(map(len, sides)) >= 5
    )
    names = {split: set().union(*corpus(split=split).catalogs(0, 60 * BLOCK).values()) for split in ("train", "test")}
    assert not names["train"] & names["test"]


def test_the_mix_is_about_a_third_none_and_balanced_over_languages():
    examples = corpus().examples(0, 4000)
    none = sum(e.intent["action"] == "none" for e in examples) / len(examples)
    assert 0.25 <= none <= 0.31
    languages = Counter(e.language for e in examples)
    assert min(languages.values()) > 0.08 * len(examples) and len(languages) == 8


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_each_scenario_can_be_had_alone_with_its_own_action(name):
    examples = only(name, catalog=GROCERY).examples(0, 60)
    assert all(name in e.phenomena and e.intent["action"] == SCENARIOS[name][0] for e in examples)


@pytest.mark.parametrize("name", sorted({*SCENARIOS, *SURFACE, *QUANTITY} - {"add", "no_quantity", "unit"}))
def test_each_phenomenon_can_be_switched_off(name):
    assert not any(name in e.phenomena for e in corpus(phenomena={name: 0}).examples(0, 300))


def test_an_unknown_phenomenon_is_refused_by_name():
    with pytest.raises(ConfigError, match="sarcasm"):
        corpus(phenomena={"sarcasm": 1})


def test_quantities_are_stated_or_one():
    digits = {"no_quantity": 0, "number_word": 0, "dozen": 0, "pair": 0}
    stated = only("add", catalog=GROCERY, languages=["en"], phenomena=digits)
    for example in stated.examples(0, 200):
        if "digit" in example.phenomena:
            assert str(example.intent["quantity"]) in example.message
    silent = only("indirect", catalog=GROCERY)
    assert {e.intent["quantity"] for e in silent.examples(0, 100)} == {1}


def test_a_corrected_quantity_is_the_last_number_of_the_message():
    digits = {"number_word": 0, "unit": 0}
    fixed = only("correct_quantity_add", catalog=Catalog.of(["Bananas"]), languages=["en"], phenomena=digits)
    for example in fixed.examples(0, 100):
        numbers = [int(word) for word in "".join(c if c.isdigit() else " " for c in example.message).split()]
        if "dozen" not in example.phenomena and numbers:
            assert numbers[-1] == example.intent["quantity"]


def test_products_that_the_shopper_already_has_are_not_requested():
    """ "we still have eggs, but we need milk" is about the milk."""
    pair = Catalog.of(["Zorvex", "Quumba"])
    for example in only("distractor_remove", catalog=pair, languages=["en"]).examples(0, 60):
        kept = ({*pair.names} - {example.intent["product"]}).pop()
        message = example.message.lower()
        assert not any(f"{verb} the {kept}".lower() in message for verb in ("remove", "drop", "take out", "delete", "scrap"))


def test_a_word_that_fits_two_products_means_none():
    """With two milks, "milk" selects neither, so no message with only "milk" has a product."""
    milks = Catalog.of(["Whole Milk 1L", "Skimmed Milk 1L"])
    for example in corpus(catalog=milks, languages=["en"]).examples(0, 1500):
        if example.intent["product"] and "typo" not in example.phenomena:
            assert re.search("whole|skim|full|fat|blue|red", example.message.lower()), example


def test_what_is_not_in_the_catalog_is_none():
    nouns = [noun for of in load("en").nouns.values() for noun in of]
    # Banana juice is another product than bananas.
    spellings = {spelling.lower() for noun in nouns for spelling in noun.spellings if " " in spelling}
    other = sorted((text for text in spellings if not re.search("whole milk|ground coffee", text)), key=len)
    for example in only("not_in_catalog", catalog=GROCERY, languages=["en"]).examples(0, 200):
        assert example.intent == {"action": "none", "product": None, "quantity": None}
        message = example.message.lower()
        for spelling in reversed(other):
            message = message.replace(spelling, "")
        assert not re.search(r"(?<![\w-])(eggs?|bananas?|ground coffee|monitors?|whole milks?)(?![\w-])", message), example


def test_names_that_no_language_file_knows_are_called_by_parts_of_themselves():
    unknown = Catalog.of(["Zorvex Lamp Pro", "Mleko Łaciate 1L", "Quax 300 Sensor", "Bubliki"])
    examples = [e for e in corpus(catalog=unknown).examples(0, 600) if e.intent["product"]]
    assert {e.intent["product"] for e in examples} == set(unknown.names)
    assert any("zorvex" in e.message.lower() and "lamp pro" not in e.message.lower() for e in examples)


def test_another_language_calls_a_product_by_its_own_word():
    messages = " ".join(e.message.lower() for e in corpus(catalog=GROCERY, languages=["de"]).examples(0, 600))
    assert "vollmilch" in messages and "eier" in messages and "whole milk" in messages


def test_a_schema_other_than_carts_is_refused_with_the_remedy_of_own_data():
    labels = IntentSchema("labels", "x", (Choice("label", ("a", "b")),))
    with pytest.raises(ConfigError, match="labeled messages of your own: labelled.uri"):
        Corpus(labels, ["en"], 1)


@pytest.mark.parametrize("limits", [(2, 9, 2), (1, 500, 1), (1, 1, 1)])
def test_a_quantity_that_no_message_is_made_for_is_refused(limits):
    cart = IntentSchema("cart", "x", (*CART.slots[:2], Count("quantity", *limits)))
    with pytest.raises(ConfigError, match=r"schema\.slots\.quantity=.min \d.*labelled\.uri"):
        Corpus(cart, ["en"], 1)


def part_of_another(name: str, text: str, names: Sequence[str]) -> bool:
    longer = f"{text[: text.index(name)].split()[-1]} {name}" if text[: text.index(name)].strip() else name
    return any(longer in other.lower() for other in names if other.lower() != name)


def test_a_products_own_whole_name_is_never_ambiguous():
    names = Catalog.of(["Apples 1kg", "Red Apples 1kg", "Green Apples 1kg", "Kettle"])
    unclear = [e.message.lower() for e in only("ambiguous", catalog=names, languages=["en"]).examples(0, 200)]
    assert any("apples" in message for message in unclear) and not any("apples 1kg" in message for message in unclear)
    sampled = only("ambiguous", "small_talk", languages=["en"])
    catalogs = sampled.catalogs(0, 20 * BLOCK)
    unclear = [example for example in sampled.examples(0, 20 * BLOCK) if "ambiguous" in example.phenomena]
    for example in unclear:
        text = f" {example.message.lower()} "
        # A name of one word may be in another's: "throw pillow".
        whole = [name for name in catalogs[example.catalog] if " " in name and f" {name.lower()} " in text]
        # "Black Faux Fur" may be part of two other names: "Black Faux Fur 1 m", "Black Faux Fur 2 m".
        whole = [name for name in whole if not part_of_another(name.lower(), text, catalogs[example.catalog])]
        assert not whole, example


def test_no_message_is_empty():
    heard = only("gibberish", "voice").examples(0, 300)
    assert all(example.message for example in heard) and any("?" in example.message for example in heard)


def test_an_ingredient_of_a_product_is_another_product():
    names = ["Juice Orange 1L", "Thunfisch in Olivenöl", "Tuna in Sunflower Oil 160g", "Crisps Salt & Vinegar 150g"]
    for name in names:
        (product,) = given([name]).products
        assert product.idea not in ("oranges", "olive_oil", "sunflower_oil", "vinegar"), product
    assert [product.idea for product in given(["Orange Juice 1L", "Sunflower Oil 1L"]).products] == [
        "orange_juice",
        "sunflower_oil",
    ]


def test_sizes_are_one_however_they_are_written():
    names = Catalog.of(["Heinz Ketchup 500 g", "Hela Ketchup 500g"])
    messages = corpus(catalog=names, languages=["en"]).examples(0, 600)
    sized = [e for e in messages if "500" in e.message and not {"heinz", "hela"} & set(e.message.lower().split())]
    plain = [e for e in sized if not {"typo", "several_products", "injection"} & set(e.phenomena)]
    assert plain and all(e.intent["action"] == "none" for e in plain), [e for e in plain if e.intent["action"] != "none"][:3]


def test_a_quantity_above_the_maximum_is_never_written_as_less():
    for example in only("quantity_out_of_range", catalog=GROCERY).examples(0, 1500):
        assert any(beyond.lower() in example.message.lower() for beyond in load(example.language).numbers.beyond), example


def test_an_unknown_language_names_the_known_ones():
    with pytest.raises(ConfigError, match="'de', 'en'"):
        corpus(languages=["tlh"])


def test_a_part_of_two_names_picks_neither_whatever_the_names():
    """ "the Zorvex" is ambiguous between a Zorvex Mini and a Zorvex Max, and "Zorvex Panel" is not in the catalog."""
    names = Catalog.of(["Zorvex Mini", "Zorvex Max", "Quumba Lamp", "Bananas"])
    for example in corpus(catalog=names, languages=["en"]).examples(0, 2000):
        text = example.message.lower()
        if "zorvex" in text and not {"typo", "injection", "several_products"} & set(example.phenomena):
            assert not example.intent["product"] or "mini" in text or "max" in text or "quumba" in text, example
    absent = [e.message.lower() for e in only("not_in_catalog", catalog=names, languages=["en"]).examples(0, 400)]
    assert any("zorvex" in message for message in absent)
    unclear = [e.message.lower() for e in only("ambiguous", catalog=names, languages=["en"]).examples(0, 20)]
    assert all("zorvex" in message for message in unclear)


def test_a_long_name_is_not_taken_for_its_first_words():
    names = {"Salade de pommes de terre": "potato_salad", "Alubias en salsa de tomate": "baked_beans", "Laitue": "lettuce"}
    assert {product.name: product.idea for product in given(list(names)).products} == names


def test_a_quality_tells_near_duplicates_apart_and_agrees_in_every_language():
    shops = corpus(split="all", languages=["en"]).catalogs(0, 200 * BLOCK).values()
    words = {word for names in shops for name in names for word in name.lower().split()}
    assert {"organic", "frozen", "wireless", "large"} <= words
    assert load("de").described("mouse", 0, "wireless").say("title") == "kabellose Maus"
    assert load("it").described("bananas", 0, "organic").say("title", True) == "banane biologiche"
    assert load("es").described("bananas", 0, "organic").say("the", True) == "los plátanos ecológicos"
    assert load("hr").described("mouse", 0, "wireless").say("the").startswith("bežičn")


def test_a_variety_stands_where_its_language_puts_it():
    assert load("it").described("candle", 0, "fig").say("the", True) == "le candele al fico"
    assert load("en").described("tent", 0, "two_persons").say("a") == "a two-person tent"
    assert load("en").described("candle", 0, "lemon", behind=True).say("the") == "the candle lemon"


def test_what_is_not_there_is_of_another_kind_not_of_one_that_it_may_also_be():
    assert "black" in alike("grey") and "cotton" in alike("wool") and "small" in alike("large")
    assert not alike("grey") & set(ontology()["varieties"]["cloth"]) and not alike("organic")


def test_what_broke_is_asked_for_again_and_is_something_that_lasts():
    mixed = Catalog.of(["Whole Milk 1L", "Kettle", "Bananas"])
    assert {e.intent["product"] for e in only("worn_out", catalog=mixed).examples(0, 60)} == {"Kettle"}
    assert {e.intent["quantity"] for e in only("worn_out", catalog=mixed).examples(0, 60)} == {1}


def test_names_with_another_products_word_stand_side_by_side_and_the_plain_word_is_the_plain_product():
    assert "apple_juice" in {idea.name for idea in Pool(list(ideas())).near("apples")}
    shelf = Shelf([Product("Apples 1kg", "apples", "", "1kg"), Product("Apple Juice 1L", "apple_juice", "", "1L")])
    assert shelf.clear("apples") and shelf.clear("apple_juice")


def test_a_word_that_nobody_needs_does_not_make_the_only_product_of_its_kind_another_one():
    examples = [e for e in only("add", phenomena={"unneeded": 50}).examples(0, 2000) if "unneeded_word" in e.phenomena]
    assert len(examples) > 100 and {e.intent["action"] for e in examples} == {"add"}


def test_a_shopper_who_misspeaks_means_what_is_said_last(monkeypatch):
    shirts = [Product(f"{color.title()} T-Shirt", "t_shirt", quality=color) for color in ("red", "blue")]
    shelf = Shelf([*shirts, Product("Zorvex")])
    monkeypatch.setattr(corpus_module, "_given", lambda catalog: shelf)
    catalog = Catalog.of(shelf.names)
    off = {name: 0 for name in (*SCENARIOS, *SURFACE)}
    digits = {name: 0 for name in ("number_word", "unit", "times", "dozen", "pair")}
    plain = off | digits | {"add": 1, "slip": 1, "full_name": 0, "name_part": 0}
    examples = Corpus(CART, ["en"], 3, catalog, phenomena=plain).examples(0, 300)
    slips = [example for example in examples if "slip" in example.phenomena]
    assert len(slips) > 100
    for example in slips:
        numbers = re.findall(r"(?<!\w)\d+(?!\w)", example.message)
        if numbers and "number_beside" not in example.phenomena:
            assert int(numbers[-1]) == example.intent["quantity"], example
    swapped = [e for e in slips if "red" in e.message.lower() and "blue" in e.message.lower()]
    assert len(swapped) > 10
    for example in swapped:
        last = re.findall(r"\b(?:red|blue)\b", example.message.lower())[-1]
        assert example.intent["product"] == f"{last.title()} T-Shirt", example
        assert not re.search(r"\ban? \w+ one\b", example.message) or example.intent["quantity"] == 1, example


@pytest.mark.parametrize("name", ["unit", "dozen", "times"])
def test_a_way_to_say_a_quantity_can_be_switched_off(name):
    for schema in (CART, replace(CART, slots=(Choice("action", ("add", "remove")), *CART.slots[1:]), repeat=8)):
        examples = Corpus(schema, available(), 3, phenomena={name: 0}).examples(0, 20 * BLOCK)
        assert not any(name in example.phenomena for example in examples)
