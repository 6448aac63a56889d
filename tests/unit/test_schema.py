import jsonschema
import pytest

from intent.errors import ConfigError
from intent.schema import Choice, Count, Entity, IntentSchema
from tests.tiny import CART, LABELS, NAMES

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
