"""Generated lists: every label has the items of its message, in the message's order."""

import pickle
import re
from collections import Counter
from dataclasses import replace

import pytest

from intent.dataset.deduplicate import deduplicate, leaks
from intent.dataset.example import Example, from_table, to_table
from intent.errors import ConfigError
from intent.synth import language as module
from intent.synth import validate
from intent.synth.card import card
from intent.synth.chart import picture
from intent.synth.contradictions import contradictions
from intent.synth.corpus import BLOCK, Corpus
from intent.synth.language import available
from intent.synth.phenomena import LIST_SURFACE, LISTING, LISTS, ONE_ONLY, SCENARIOS, SURFACE
from intent.task.catalog import Catalog
from intent.task.schema import INTENTS, Choice, Count, Entity, IntentSchema, items_of
from jobs.generate import _shares

BASKET = IntentSchema("basket", "x", (Choice("action", ("add", "remove")), Entity("product"), Count("quantity")), 8)
CART = IntentSchema("cart", "x", (Choice("action", ("add", "remove", "none"), ("none",)), Entity("product"), Count("quantity")))
NAMES = ("Zorvex", "Quumba", "Plimtor", "Drako", "Fennwick", "Brulo", "Skarn")
UNKNOWN = Catalog.of(NAMES)
GROCERY = Catalog.of(["Whole Milk 1L", "Free Range Eggs", "Bananas", "Ground Coffee 250g", "Sourdough Bread", "Zorvex Lamp"])


def corpus(**options) -> Corpus:
    schema = options.pop("schema", BASKET)
    return Corpus(schema, options.pop("languages", available()), options.pop("seed", 3), **options)


def only(*names: str, **options) -> Corpus:
    """Return a corpus of only the scenarios and surface phenomena `names`."""
    off = {name: 0 for name in (*SCENARIOS, *LISTS, *SURFACE, *LIST_SURFACE) if name not in {*names, *ONE_ONLY}}
    return corpus(phenomena={**off, **{name: 1 for name in names}, **options.pop("phenomena", {})}, **options)


def products(example: Example) -> list[str]:
    return [item["product"] for item in items_of(example.intent)]


def positions(example: Example) -> list[int]:
    """Return the position in the message of each product of a label. Works for names of one word."""
    return [example.message.lower().find(product.lower()) for product in products(example)]


@pytest.mark.parametrize("split", ["train", "test", "all"])
def test_every_label_is_valid_for_the_catalog_and_has_no_more_items_than_the_schema(split):
    sampled = corpus(split=split)
    catalogs = sampled.catalogs(0, 1500)
    for example in sampled.examples(0, 1500):
        assert BASKET.check(example.intent, catalogs[example.catalog]) == example.intent, example
        assert (
            len(items_of(example.intent)) <= 6
            and "\n".join(" ".join(line.split()) for line in example.message.splitlines()) == example.message != ""
        )
    short = corpus(schema=replace(BASKET, repeat=2), catalog=UNKNOWN).examples(0, 600)
    assert {len(items_of(example.intent)) for example in short} == {0, 1, 2}


def test_three_tenths_of_the_messages_about_a_cart_are_lists_of_two_to_six_items():
    examples = corpus().examples(0, 4000)
    listed = [e for e in examples if LISTS.keys() & set(e.phenomena)]
    about = sum(bool(items_of(e.intent)) for e in examples)
    assert 0.27 <= len(listed) / about <= 0.33
    lengths = Counter(len(items_of(e.intent)) for e in listed)
    assert set(range(2, 7)) <= set(lengths) and sum(lengths[n] for n in range(2, 7)) > 0.95 * len(listed)
    assert Counter(e.language for e in listed).keys() == set(available())
    assert any(e.intent == {INTENTS: []} for e in examples)


def test_lists_do_not_depend_on_how_the_work_is_divided():
    whole = corpus().examples(0, 2 * BLOCK)
    assert pickle.loads(pickle.dumps(corpus())).examples(BLOCK, 2 * BLOCK) == whole[BLOCK:]


def test_a_schema_of_one_intent_has_no_lists_and_refuses_their_names():
    examples = corpus(schema=CART).examples(0, 600)
    assert not any({*LISTS, *LISTING, *LIST_SURFACE} & set(e.phenomena) for e in examples)
    assert {tuple(e.intent) for e in examples} == {("action", "product", "quantity")}
    assert {e.intent["action"] for e in examples if "several_products" in e.phenomena} == {"none"}
    with pytest.raises(ConfigError, match="list_swap"):
        corpus(schema=CART, phenomena={"list_swap": 1})
    with pytest.raises(ConfigError, match="several_products"):
        corpus(phenomena={"several_products": 1})


def test_a_list_needs_the_two_actions_alone():
    with pytest.raises(ConfigError, match="has no generator"):
        corpus(schema=replace(BASKET, slots=(Choice("action", ("add", "remove", "keep")), *BASKET.slots[1:])))


@pytest.mark.parametrize("name", sorted({*LISTS, *LISTING, *LIST_SURFACE}))
def test_each_phenomenon_of_lists_can_be_switched_off(name):
    assert not any(name in e.phenomena for e in corpus(phenomena={name: 0}).examples(0, 400))


@pytest.mark.parametrize("name", sorted(LISTS))
def test_each_scenario_can_be_had_alone_in_every_language_and_its_label_keeps_its_rule(name):
    shop = Catalog.of([*GROCERY.names, "Red T-Shirt", "Blue T-Shirt"])  # two products of one kind
    made = only(name, catalog=shop)
    examples = made.examples(0, 240)
    assert {e.phenomena[0] for e in examples} == {name} and {e.language for e in examples} == set(available())
    # A frame may contain a number of its own ("that's gone over fifty quid").
    assert len(list(contradictions(examples, {"": shop.names}))) <= 2


@pytest.mark.parametrize("name", ["list", "list_remove", "list_mixed", "list_swap", "list_refusal", "list_total", "list_each"])
def test_items_are_in_the_order_in_which_they_are_said(name):
    for example in only(name, catalog=UNKNOWN).examples(0, 160):
        assert positions(example) == sorted(positions(example)) and min(positions(example)) >= 0, example


def test_the_style_of_a_list_is_seen_in_its_message():
    def written(style: str, *names: str) -> list[str]:
        others = {other: 0 for other in LISTING if other != style}
        made = only("list", *names, catalog=UNKNOWN, languages=["en"], phenomena={**others, "times": 0})
        return [e.message for e in made.examples(0, 240) if style in e.phenomena and len(products(e)) > 2]

    for message in written("bullets"):
        positions = [message.find(name) for name in NAMES if name in message]
        items = message[min(positions) : max(positions)] if positions else ""
        assert re.search(r"(^|\s)(\S|\d[.)]|\[ \]) ?\S", message) and items and " and " not in items, message
    assert any(re.search(r"\b1[.)] .*\n2[.)] ", message) for message in written("bullets"))
    assert not any("," in message for message in written("dictation", "voice"))
    assert any(" as well as " in message for message in written("conjunction"))


def test_a_line_number_is_never_left_without_its_mark():
    """ "1. milk 2. eggs" without its dots would ask for one milk and two eggs."""
    only_bullets = {**{other: 0 for other in LISTING if other != "bullets"}, "times": 0, "digit": 0}
    made = only("list", "voice", "no_punctuation", catalog=UNKNOWN, languages=["en"], phenomena=only_bullets)
    for example in made.examples(0, 200):
        assert not re.search(r"\b1 \w.*\b2 \w", example.message), example


def test_a_correction_changes_the_item_that_it_speaks_of():
    plain = {"number_word": 0, "unit": 0, "dozen": 0, "pair": 0, "no_quantity": 0, "dictation": 0}
    kinds = Counter()
    for example in only("list_correction", catalog=UNKNOWN, languages=["en"], phenomena=plain).examples(0, 300):
        named = re.findall("|".join(NAMES), example.message)
        numbers = [int(n) for n in re.findall(r"\d+", example.message)]
        items = {item["product"]: item["quantity"] for item in items_of(example.intent)}
        repeated = [name for name, n in Counter(named).items() if n > 1]
        if len(items) == len(set(named)) and not repeated:
            kinds["last"] += 1
            assert items[named[-1]] == numbers[-1], example
        elif len(items) == len(set(named)):
            kinds["named"] += 1
            assert items[repeated[0]] == numbers[-1], example
        else:
            kinds["dropped"] += 1
            assert set(named) - set(items) == set(repeated), example
    assert min(kinds[name] for name in ("last", "named", "dropped")) > 20


def test_what_the_shop_lacks_leaves_the_rest():
    for example in only("list_unknown", catalog=UNKNOWN, languages=["en"]).examples(0, 100):
        named = set(re.findall("|".join(NAMES), example.message, re.IGNORECASE))
        assert set(products(example)) == {name for name in NAMES if name in named} != set(), example


def test_what_is_kept_is_no_item():
    for example in only("list_distractor", catalog=UNKNOWN, languages=["en", "de"]).examples(0, 100):
        named = set(re.findall("|".join(NAMES), example.message))
        assert len(named - set(products(example))) == 1 and set(products(example)) < named, example


def test_what_is_asked_for_twice_is_summed():
    plain = {"number_word": 0, "unit": 0, "dozen": 0, "pair": 0, "no_quantity": 0, "times": 0}
    for example in only("list_twice", catalog=UNKNOWN, phenomena=plain).examples(0, 100):
        if "number_beside" in example.phenomena:
            continue
        unnumbered = re.sub(r"(?<!\S)\d[.)] ", "", example.message)  # the numbers of a list's lines are no quantities
        numbers = [int(n) for n in re.findall(r"\d+", unnumbered)]
        named = sum(example.message.lower().count(name.lower()) for name in NAMES)
        others = named - len(numbers)  # "another lamp" has no number and means one
        assert others in (0, 1) and sum(numbers) + others == sum(item["quantity"] for item in items_of(example.intent)), example


QUALITIES = [("en", "red", 2, "red"), ("de", "red", 1, "rotes"), ("it", "red", 3, "rosse"), ("hr", "red", 2, "crvene")]


@pytest.mark.parametrize(("code", "quality", "n", "expected"), QUALITIES)
def test_a_quality_stands_for_its_noun_in_the_form_that_the_noun_would_have(code, quality, n, expected):
    assert module.load(code).quality("t_shirt", 0, quality).counted(n) == expected


def test_spanish_and_is_e_before_the_sound_of_i():
    names = Catalog.of(["Ibrix", "Hilo Dental", "Hielo", "Zorvex"])
    messages = [e.message for e in only("list", "list_mixed", catalog=names, languages=["es"]).examples(0, 400)]
    assert any(" e Ibrix" in message or " e Hilo" in message for message in messages)
    assert not any(" y Ibrix" in message or " y Hilo" in message or " e Hielo" in message for message in messages)


def test_a_noun_that_items_share_occurs_once():
    sampled = only("list", "elided_noun", languages=["en"], phenomena={"number_word": 0, "dozen": 0, "pair": 0})
    shared = [e for e in sampled.examples(0, 40 * BLOCK) if "elided_noun" in e.phenomena]
    assert shared
    for example in shared:
        numbers = [int(n) for n in re.findall(r"\d+", example.message)]
        assert {item["quantity"] for item in items_of(example.intent)} <= set(numbers) and len(set(products(example))) > 1, (
            example
        )


def test_a_total_may_name_the_kind_and_its_items_by_their_colours_alone():
    sampled = only("list_total", languages=["en", "it", "hr"], phenomena={"number_word": 0, "dozen": 0, "pair": 0, "unit": 0})
    short = [e for e in sampled.examples(0, 60 * BLOCK) if not any(name in e.message for name in products(e))]
    totals = [e for e in short if len({name.split()[-1] for name in products(e)}) == 1 and e.language == "en"]
    assert any(str(sum(item["quantity"] for item in items_of(e.intent))) in e.message for e in totals)


# Each rule rejects a label that its message cannot have.
MILK, EGGS, TEA = "Whole Milk 1L", "Free Range Eggs", "Ground Coffee 250g"
WRONG = {
    "list": ("whole milk 1l and free range eggs", [("add", MILK, 1), ("remove", EGGS, 1)], "one action is shared"),
    "list_remove": ("remove whole milk 1l and free range eggs", [("add", MILK, 1), ("add", EGGS, 1)], "nothing is added"),
    "list_need": ("we're out of milk 1l and free range eggs", [("add", MILK, 1), ("add", EGGS, 3)], "no quantity is said"),
    "list_distractor": ("milk 1l and free range eggs, keep the tea", [("add", MILK, 1), ("remove", EGGS, 1)], "one action"),
    "list_mixed": ("add whole milk 1l, drop the free range eggs", [("add", MILK, 1), ("add", EGGS, 1)], "adds and removes"),
    "list_correction": ("free range eggs, no, not those", [], "a list has several items"),
    "list_swap": ("swap whole milk 1l for free range eggs", [("add", MILK, 1), ("add", EGGS, 1)], "removes one thing and adds"),
    "list_each": ("two of each: whole milk 1l, free range eggs", [("add", MILK, 2), ("add", EGGS, 1)], "one quantity"),
    "list_refusal": ("no whole milk 1l, no free range eggs", [("remove", MILK, 2), ("remove", EGGS, 2)], "no quantity is said"),
    "list_unknown": ("two whole milk 1l and a unicorn", [("add", MILK, 3)], "does not say [3]"),
    "list_aside": ("three whole milk 1l and free range eggs. open today?", [("add", MILK, 3)], "a list has several items"),
    "list_total": ("five: two whole milk 1l, two free range eggs", [("add", MILK, 2), ("add", EGGS, 2)], "say 4, the sum"),
    "list_both": ("both whole milks 1l", [("remove", MILK, 2), ("remove", EGGS, 1)], "no quantity is said"),
    "list_twice": ("whole milk 1l, free range eggs, one more whole milk 1l", [("add", MILK, 1), ("add", EGGS, 1)], "is summed"),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(LISTS))
def test_the_rule_of_each_phenomenon_rejects_a_label_that_it_cannot_have(name):
    message, items, why = WRONG[name]
    reasons = [reason for _, reason in contradictions([listed(message, items, name)], {"": GROCERY.names})]
    assert any(why in reason for reason in reasons), reasons


def listed(message: str, items: list[tuple[str, str, int]], *phenomena: str) -> Example:
    intents = [dict(zip(("action", "product", "quantity"), item, strict=True)) for item in items]
    return Example("1", message, {INTENTS: intents}, "en", "", phenomena)


def reasons(message: str, *items: tuple[str, str, int]) -> list[str]:
    return [why for _, why in contradictions([listed(message, list(items))], {"": GROCERY.names})]


def test_rules_contradict_a_wrong_item_of_a_list():
    assert reasons("two whole milk 1l and three eggs", ("add", MILK, 2), ("add", EGGS, 3)) == []
    assert reasons("two whole milk 1l and three eggs", ("add", MILK, 2), ("add", EGGS, 4)) == [
        "the message does not say [4]", "the message says [3]",
    ]  # fmt: skip
    assert reasons("bananas,2 whole milk 1l", ("add", "Bananas", 1), ("add", MILK, 2)) == []
    assert reasons("free range eggs and bananas", ("add", EGGS, 1), ("add", MILK, 1)) == ["the message names 'Bananas'"]
    assert reasons("1. whole milk 1l 2. free range eggs 3. milk 1l", ("add", MILK, 1), ("add", EGGS, 1)) == []
    assert reasons("free range eggs (6) bananas", ("add", EGGS, 6), ("add", "Bananas", 1)) == []


def test_a_list_in_another_order_repeats_it_and_a_short_one_is_found_in_an_evaluation_set():
    one = listed("eggs, milk", [("add", EGGS, 1), ("add", MILK, 1)])
    other = listed("Eggs milk", [("add", MILK, 1), ("add", EGGS, 1)])
    assert deduplicate([one, other]).repeated == 1 and deduplicate([one, other]).contradicting == 0
    evaluation = ["milk and eggs", "two bananas, three eggs and some bread"]
    leaking = [listed("Eggs and milk!", []), listed("three eggs, some bread and two bananas", [])]
    assert leaks([*leaking, listed("eggs and bread", [])], evaluation) == leaking


@pytest.mark.parametrize(
    ("group", "wrong", "expected"),
    [
        ("list_note", "shopping list (today|tomorrow)", "must say {items}"),
        ("list_remove_note", "take out: (all|{items})", "must say {items} in every wording"),
        ("list_clause_add", "add {np}", "must say {items}"),
        ("list_clause_remove", "remove {items} and {num}", "says ['num'] beside its own slots"),
        ("list_fix_last", "{num}, no, {clause}", "must say {clause} first"),
        ("list_fix_named", "{clause}, no wait", "must say {fixed}"),
        ("list_fix_drop", "{clause}, not that", "must say {dropped_...}"),
        ("list_fix_product", "{clause}, no, not {dropped_the}", "must say {new}"),
        ("list_swap", "swap {out_the} for something", "must say {in_...}"),
        ("list_each_add", "each of {all_bare}", "must say {each}"),
        ("list_each_remove", "remove {each} each", "must say {all_...}"),
        ("list_refuse", "not {first_the} either", "must say {refused}, or {first_...} and {last_...}"),
        ("list_refuse_item", "no {np}", "no quantity"),
        ("list_need", "we have run out", "must say {all_...}"),
        ("list_keep", "{clause} and {items}, keep {kept_the}", "says ['items'] beside its own slots"),
        ("list_have", "{clause}, I have the rest", "must say {kept_...}"),
        ("list_total", "{total} in all", "must say {items}"),
        ("list_variants", "{variants}", "must say {total_np}"),
        ("list_more", "{clause} and more {more_counted}", "must say {more}"),
        ("list_swap", "swap {out_teh} for {in}", "{out_teh} is no slot or phrase"),
    ],
)
def test_a_template_that_contradicts_its_label_is_refused(group, wrong, expected, tmp_path, monkeypatch):
    text = (module.FOLDER / "en.yaml").read_text(encoding="utf-8")
    head, header, rest = text.partition(f"\n  {group}:")
    line = f'\n    - "{wrong}"'
    rest = re.sub(r"^ \[", f' ["{wrong}", ', rest) if rest.startswith(" [") else line + rest
    (tmp_path / "xx.yaml").write_text(head + header + rest, encoding="utf-8")
    monkeypatch.setattr(validate, "FOLDER", tmp_path)
    complaints = [complaint for complaint in validate.complaints("xx") if complaint.startswith(f"templates.{group}:")]
    assert complaints and any(expected in complaint for complaint in complaints), complaints


def test_joins_that_would_change_the_meaning_are_refused(tmp_path, monkeypatch):
    text = (module.FOLDER / "en.yaml").read_text(encoding="utf-8")
    text = text.replace('  and: [" and "', '  and: [" and"').replace('  then: [" and "', '  then: [" and 2 "')
    (tmp_path / "xx.yaml").write_text(re.sub(r"\n  all: .*", "\n  all: []", text), encoding="utf-8")
    monkeypatch.setattr(validate, "FOLDER", tmp_path)
    complaints = " ".join(validate.complaints("xx"))
    assert (
        "joins.and: ' and' must end with a space" in complaints
        and "joins.then: ' and 2 ' must not contain a number" in complaints
    )
    assert "joins.all: add at least three" in complaints


def test_card_chart_and_record_count_items_and_show_lists():
    examples = corpus(languages=["en", "de"], catalog=GROCERY).examples(0, 500)
    text = card(examples, {"": GROCERY.names})
    assert "## Items a message" in text and "add and remove" in text and "| language | message | intents |" in text
    assert re.search(r"\| Labels that rules contradict \| [012] \|", text) and "list\\_swap" in text
    assert "add and remove" in picture(examples)
    assert from_table(to_table(examples)) == examples
    shares = _shares(to_table(examples))
    assert set(shares["actions"]) == {"add", "remove", "none"} and sum(shares["items"].values()) == 500
    assert shares["actions"]["none"] == shares["items"]["0"]
    assert "No examples" in card([], {}) and "intents" in card([listed("hi", [])], {"": ()})


def test_one_noun_can_mean_two_products():
    shop = Catalog.of(["Red T-Shirt", "Blue T-Shirt", "Zorvex Lamp"])
    examples = only("list_both", catalog=shop, languages=["en", "de", "hr"]).examples(0, 200)
    assert {(item["product"], item["quantity"]) for e in examples for item in items_of(e.intent)} == {
        (n, 1) for n in shop.names[:2]
    }
    assert {item["action"] for e in examples for item in items_of(e.intent)} == {"add", "remove"}
    assert any("both t-shirts" in e.message.lower() for e in examples) and any(
        "obje majice" in e.message.lower() for e in examples
    )
