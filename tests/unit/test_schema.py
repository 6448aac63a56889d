import json
from dataclasses import replace
from pathlib import Path

import jsonschema
import pyarrow as pa
import pytest
from omegaconf import OmegaConf

from intent.artifacts import fingerprint
from intent.errors import ConfigError
from intent.task.config import SchemaConfig
from intent.task.schema import Choice, Count, Entity, IntentSchema, items_of, same
from tests.tiny import BASKET, CART, LABELS, NAMES

CONF = Path(__file__).parents[2] / "conf"
GOOD = [
    {"action": "add", "product": "Eggs", "quantity": 12},
    {"action": "remove", "product": "Whole Milk 1L", "quantity": 1},
    {"action": "none", "product": None, "quantity": None},
]
BAD = [
    {"action": "buy", "product": "Eggs", "quantity": 1},
    {"action": "add", "product": "Caviar", "quantity": 1},
    {"action": "add", "product": "Eggs", "quantity": 100},
    {"action": "add", "product": "Eggs", "quantity": 0},
    {"action": "add", "product": None, "quantity": 1},
    {"action": "none", "product": "Eggs", "quantity": 1},
    {"action": "add", "product": "Eggs", "quantity": True},
    {"action": "add", "product": "Eggs", "quantity": 1, "store": 4},
]


@pytest.mark.parametrize("intent", GOOD)
def test_valid_intents_pass_both_checks(intent):
    jsonschema.validate(intent, CART.json_schema(NAMES))
    assert CART.check(intent, NAMES) == intent
    assert CART.intent(CART.values(intent)) == intent


@pytest.mark.parametrize("intent", BAD)
def test_invalid_intents_fail_both_checks(intent):
    with pytest.raises(ValueError):
        CART.check(intent, NAMES)
    if intent["quantity"] is not True:  # JSON Schema counts true as no integer, Python does
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(intent, CART.json_schema(NAMES))


def test_label_schema_needs_no_catalog():
    assert LABELS.check({"label": "none"}) == {"label": "none"}
    jsonschema.validate({"label": "return_item"}, LABELS.json_schema())
    assert [field.name for field in LABELS.arrow_fields()] == ["label"]


def test_mistakes_in_a_schema_are_refused_by_name():
    with pytest.raises(ConfigError, match="values.*'a'.*twice"):
        Choice("x", ("a", "a"))
    with pytest.raises(ConfigError, match="ends.*'c'"):
        Choice("x", ("a", "b"), ("c",))
    with pytest.raises(ConfigError, match="default=0"):
        Count("n", 1, 5, 0)
    with pytest.raises(ConfigError, match=r"schema.slots.*'x'"):
        IntentSchema("s", "", (Entity("x"), Entity("x")))
    with pytest.raises(ConfigError, match=r"schema.slots='status'"):
        IntentSchema("s", "", (Choice("status", ("a", "b")),))


def basket(*items: tuple[str, str, int]) -> dict:
    return {"intents": [dict(zip(("action", "product", "quantity"), item, strict=True)) for item in items]}


LISTS = [
    basket(),
    basket(("add", "Eggs", 12)),
    basket(("add", "Eggs", 12), ("remove", "Eggs", 1), ("add", "Crème brûlée", 99)),
]
NO_LISTS = [
    {"action": "add", "product": "Eggs", "quantity": 1},
    {"intents": None},
    {"intents": "add"},
    {"intents": ["add"]},
    {"intents": [], "action": "add"},
    basket(("none", "Eggs", 1)),
    basket(("add", "Eggs", 1), ("add", "Caviar", 1)),
    basket(*[("add", name, 1) for name in NAMES[:5]]),
]


@pytest.mark.parametrize("intent", LISTS)
def test_valid_lists_pass_both_checks(intent):
    jsonschema.validate(intent, BASKET.json_schema(NAMES))
    assert BASKET.check(intent, NAMES) == intent
    assert BASKET.intent(BASKET.values(intent)) == intent
    assert pa.array(intent["intents"], BASKET.arrow_fields()[0].type.value_type).drop_null().to_pylist() == [
        item | {"confidence": None} for item in intent["intents"]
    ]


@pytest.mark.parametrize("intent", NO_LISTS)
def test_invalid_lists_fail_both_checks(intent):
    with pytest.raises(ValueError):
        BASKET.check(intent, NAMES)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(intent, BASKET.json_schema(NAMES))


def test_a_bad_item_is_named_by_its_place_and_slot():
    with pytest.raises(ValueError, match=r"intents\[1\]: product='Caviar'"):
        BASKET.check(basket(("add", "Eggs", 1), ("add", "Caviar", 1)), NAMES)


def test_the_same_product_twice_with_one_action_is_their_sum():
    answer = basket(("add", "Eggs", 2), ("remove", "Eggs", 1), ("add", "Eggs", 3))
    assert BASKET.check(answer, NAMES) == basket(("add", "Eggs", 5), ("remove", "Eggs", 1))
    assert BASKET.check(basket(("add", "Eggs", 60), ("add", "Eggs", 60)), NAMES) == basket(("add", "Eggs", 99))


def test_the_order_of_a_list_makes_no_difference():
    one, other = basket(("add", "Eggs", 2), ("remove", "Eggs", 1)), basket(("remove", "Eggs", 1), ("add", "Eggs", 2))
    assert same(one, other) and not same(one, basket(("add", "Eggs", 2)))
    assert same({"intents": None}, {"intents": None}) and not same({"intents": None}, basket())
    assert same(GOOD[0], dict(reversed(GOOD[0].items()))) and not same(GOOD[0], GOOD[1]) and not same(GOOD[0], None)
    assert items_of(GOOD[0]) == [GOOD[0]] and items_of(basket()) == items_of({"intents": None}) == items_of(None) == []


def test_a_schema_of_one_intent_keeps_the_name_that_its_artifacts_have():
    assert fingerprint(CART.identity()) == "4bac26c0d02875dd"
    assert fingerprint(BASKET.identity()) != fingerprint(replace(BASKET, repeat=1).identity())


def test_mistakes_in_a_schema_of_lists_are_refused_by_name():
    for repeat in (0, 33):
        with pytest.raises(ConfigError, match=f"schema.repeat={repeat}"):
            replace(LABELS, repeat=repeat)
    with pytest.raises(ConfigError, match=r"schema.slots.action.ends.*empty list"):
        replace(CART, repeat=2)
    with pytest.raises(ConfigError, match=r"schema.slots='item'"):
        IntentSchema("s", "", (Entity("item"),), repeat=2)


def test_the_schema_of_baskets_is_as_its_file_says():
    merged = OmegaConf.merge(OmegaConf.structured(SchemaConfig), OmegaConf.load(CONF / "schema/basket.yaml"))
    schema = OmegaConf.to_object(merged).schema()
    assert (schema.name, schema.repeat, schema.names) == ("basket", 8, ["action", "product", "quantity"])
    assert schema.check(basket(("remove", "Eggs", 1)), NAMES) == basket(("remove", "Eggs", 1))
    cart = OmegaConf.merge(OmegaConf.structured(SchemaConfig), OmegaConf.load(CONF / "schema/cart.yaml"))
    assert OmegaConf.to_object(cart).schema().repeat == 1


@pytest.mark.parametrize("repeat", [1, 8])
def test_a_schema_is_read_back_from_its_identity_as_json(repeat):
    ends = () if repeat > 1 else ("none",)
    action = Choice("action", ("add", "none"), ends)
    schema = IntentSchema("cart", "Say.", (action, Entity("product"), Count("quantity", 0, 9)), repeat)
    assert IntentSchema.of(json.loads(json.dumps(schema.identity()))) == schema
