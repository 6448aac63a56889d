"""The gold set: coverage, valid labels, and parts that share nothing."""

from collections import Counter
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from intent.artifacts import Files
from intent.artifacts.lineage import Lineage
from intent.dataset.dataset import read_catalogs, read_split
from intent.errors import ConfigError, MissingArtifact
from intent.evaluate.gold import HALVES, PARTS, PRACTICE, load, messages, publish
from intent.storage import StorageOptions
from intent.task.catalog import Catalog, normalize
from intent.task.config import SchemaConfig
from intent.task.schema import INTENTS, items_of
from jobs.app import load_config

SCHEMAS = Path(__file__).parents[2] / "conf" / "schema"
LANGUAGES = {"en": 80, "de": 45, "es": 45, "fr": 45, "it": 45, "hr": 45, "pt": 45, "nl": 45}
MEANS_NONE = {
    "several_products", "out_of_scope", "product_question", "past_event", "unknown_product", "ambiguous", "injection",
}  # fmt: skip
LISTED = {
    "closing", "correction", "group_refusal", "line_breaks", "mixed_actions", "question_beside", "said_twice",
    "shared_quantity", "swap", "total", "unknown_product", "voice",
}  # fmt: skip
PHENOMENA = MEANS_NONE | {
    "direct", "indirect", "colloquial_verb", "polite", "small_talk", "question_request", "digits", "number_word", "dozen",
    "couple", "no_quantity", "correction", "negation_remove", "negation_limit", "number_in_name", "partial_name", "plural",
    "synonym", "translated_name", "typo", "missing_diacritics", "casing", "emoji", "voice", "code_switch", "rambling",
}  # fmt: skip


@pytest.fixture(scope="module")
def halves():
    return {half: load(half)[0] for half in HALVES}


@pytest.fixture(scope="module")
def examples(halves):
    return [example for half in HALVES for example in halves[half]]


@pytest.fixture(scope="module")
def schema():
    return read_schema("cart")


@pytest.fixture(scope="module")
def basket():
    return read_schema("basket")


def read_schema(name: str):
    merged = OmegaConf.merge(OmegaConf.structured(SchemaConfig), OmegaConf.load(SCHEMAS / f"{name}.yaml"))
    return OmegaConf.to_object(merged).schema()


@pytest.fixture(scope="module")
def lists():
    """Return the messages of each half as a schema of lists labels them: those that have only a list, and all."""
    loaded = {half: load(half, lists=True)[0] for half in HALVES}
    return {half: ([e for e in examples if is_list_row(e)], examples) for half, examples in loaded.items()}


def is_list_row(example) -> bool:
    return example.id.split("-")[1] > "200"


def key(message: str) -> str:
    """Return a message without differences that a reader would ignore."""
    return "".join(c for c in normalize(message).casefold() if c.isalnum())


def unevenly_split(counts: list[Counter]) -> list:
    return [k for k in counts[0] | counts[1] if abs(counts[0][k] - counts[1][k]) > max(2, 0.1 * (counts[0][k] + counts[1][k]))]


def test_every_language_is_there_and_split_evenly(halves):
    counts = [Counter(e.language for e in halves[half]) for half in HALVES]
    assert set(counts[0] + counts[1]) == set(LANGUAGES)
    assert [k for k, least in LANGUAGES.items() if (counts[0] + counts[1])[k] < least] == []
    assert unevenly_split(counts) == []


def test_every_phenomenon_is_there_and_split_evenly(halves):
    counts = [Counter(p for e in halves[half] for p in e.phenomena) for half in HALVES]
    assert set(counts[0] + counts[1]) == PHENOMENA
    assert [k for k in PHENOMENA if (counts[0] + counts[1])[k] < 12] == []
    assert unevenly_split(counts) == []


@pytest.mark.parametrize("half", HALVES)
def test_a_quarter_or_so_of_each_half_means_none(halves, half):
    share = sum(e.intent["action"] == "none" for e in halves[half]) / len(halves[half])
    assert 0.25 <= share <= 0.30


def test_every_label_is_valid_for_the_cart_and_its_own_catalog(examples, schema):
    _, catalogs = load("guide")
    for example in examples:
        assert schema.check(example.intent, catalogs[example.catalog]) == example.intent, example.id


def test_labels_agree_with_their_phenomena(examples):
    quantities = {"dozen": {6, 12}, "couple": {2}, "no_quantity": {1}}
    for example in examples:
        action, quantity = example.intent["action"], example.intent["quantity"]
        assert (action == "none") == bool(MEANS_NONE & set(example.phenomena)), example.id
        if action == "none":
            continue
        for phenomenon, allowed in quantities.items():
            assert phenomenon not in example.phenomena or quantity in allowed, example.id
        assert "digits" not in example.phenomena or str(quantity) in example.message, example.id
        assert "negation_remove" not in example.phenomena or action == "remove", example.id
        assert "negation_limit" not in example.phenomena or action == "add", example.id


def test_catalogs_load_as_a_users_own_would():
    _, catalogs = load("measure")
    for id, names in catalogs.items():
        assert 15 <= len(names) <= 30, id
        assert Catalog.of(names, id).names == names


def test_every_catalog_is_asked_about_in_both_halves(halves):
    _, catalogs = load("guide")
    for half in HALVES:
        assert {e.catalog for e in halves[half]} == set(catalogs)


def test_no_message_is_there_twice_within_or_across_halves(examples):
    repeated = [k for k, count in Counter((key(e.message) or e.message) for e in examples).items() if count > 1]
    assert repeated == []


def test_ids_are_unique_and_tell_the_language(examples):
    assert len({e.id for e in examples}) == len(examples)
    assert [e.id for e in examples if not e.id.startswith(f"{e.language}-")] == []


def test_an_unknown_part_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"gold='test'.*guide.*measure.*practice"):
        load("test")


@pytest.mark.parametrize("part", PARTS)
def test_a_part_is_measured_on_as_a_data_set_of_its_own(part, tmp_path):
    made = publish(part, str(tmp_path), StorageOptions())
    files = Files(made)
    examples, catalogs = load(part)
    assert read_split(files, "test") == examples and read_catalogs(files) == catalogs
    assert publish(part, str(tmp_path), StorageOptions()).uri == made.uri
    with pytest.raises(MissingArtifact):
        read_split(files, "train")


def test_a_schema_of_one_intent_has_the_messages_and_labels_that_it_had(halves):
    assert {half: len(halves[half]) for half in HALVES} == {"guide": 252, "measure": 246}
    assert {tuple(e.intent) for half in HALVES for e in halves[half]} == {("action", "product", "quantity")}


def test_lists_are_in_every_language_and_phenomenon_and_split_evenly(lists):
    rows = [lists[half][0] for half in HALVES]
    assert [len(half) for half in rows] == [80, 80]
    for traits in (lambda e: [e.language], lambda e: [e.catalog], lambda e: e.phenomena, lambda e: [len(items_of(e.intent))]):
        counts = [Counter(value for e in half for value in traits(e)) for half in rows]
        assert unevenly_split(counts) == []
    assert {n for e in (*rows[0], *rows[1]) for n in [len(items_of(e.intent))]} >= {0, 2, 3, 4, 5, 6}
    listed = Counter(name for half in rows for e in half for name in e.phenomena)
    assert set(Counter(e.language for half in rows for e in half).values()) == {20}
    assert [name for name in LISTED if listed[name] < 6] == []


def test_every_list_is_valid_for_the_basket_and_its_own_catalog(lists, basket):
    _, catalogs = load("guide")
    for half in HALVES:
        for example in lists[half][1]:
            assert basket.check(example.intent, catalogs[example.catalog]) == example.intent, example.id


def test_a_single_message_is_a_list_of_one_and_several_products_are_no_longer_nothing(halves, lists):
    for half in HALVES:
        listed = {e.id: e for e in lists[half][1]}
        for single in halves[half]:
            items = items_of(listed[single.id].intent)
            if "several_products" in single.phenomena:
                assert single.intent["action"] == "none" and len(items) > 1, single.id
            else:
                assert items == ([] if single.intent["action"] == "none" else [single.intent]), single.id


def test_lists_agree_with_their_phenomena(lists):
    for half in HALVES:
        for example in lists[half][0]:
            items, names = items_of(example.intent), set(example.phenomena)
            actions = {item["action"] for item in items}
            assert items or names & (MEANS_NONE - {"unknown_product"}), example.id
            assert not names & {"swap", "mixed_actions"} or actions == {"add", "remove"}, example.id
            assert "group_refusal" not in names or actions == {"remove"}, example.id
            assert "said_twice" not in names or max(item["quantity"] for item in items) > 1, example.id
            assert "no_quantity" not in names or 1 in {item["quantity"] for item in items} or "said_twice" in names, example.id
            assert "line_breaks" not in names or "\n" in example.message, example.id


def test_no_list_is_there_twice_and_none_goes_into_training(lists, examples):
    every = [e.message for half in HALVES for e in lists[half][1]]
    assert len({key(message) or message for message in every}) == len(every) == len(examples) + 160
    assert sorted(messages()) == sorted([*every, *(e.message for e in load(PRACTICE, lists=True)[0])])


def test_the_practice_part_shares_no_message_with_the_halves_and_its_labels_are_valid(lists, schema, basket):
    halves = {key(e.message) for half in HALVES for e in lists[half][1]}
    for checked, several in ((schema, False), (basket, True)):
        practice, catalogs = load(PRACTICE, lists=several)
        assert set(Counter(e.language for e in practice)) == set(LANGUAGES) and not halves & {key(e.message) for e in practice}
        assert len({key(e.message) or e.message for e in practice}) == len({e.id for e in practice}) == len(practice)
        assert len(practice) == (1268 if several else 872) and len(catalogs) == 48
        for example in practice:
            assert checked.check(example.intent, catalogs[example.catalog]) == example.intent, example.id
    assert all(Catalog.of(names, id).names == names for id, names in catalogs.items())


def test_a_half_with_lists_is_another_data_set_than_without(tmp_path):
    single, listed = (publish("guide", str(tmp_path), StorageOptions(), lists) for lists in (False, True))
    assert single.uri != listed.uri and read_split(Files(listed), "test") == load("guide", lists=True)[0]


@pytest.mark.parametrize(("schema", "messages"), [("cart", 246), ("basket", 326)])
def test_an_evaluation_uses_the_messages_that_its_schema_can_label(schema, messages, tmp_path):
    lineage = Lineage(load_config("evaluate", [f"workspace={tmp_path}", f"schema={schema}", "gold=measure"]))
    examples = read_split(Files(lineage.held_out()), "test")
    assert len(examples) == messages and {INTENTS in e.intent for e in examples} == {schema == "basket"}
