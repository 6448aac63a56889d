"""Sizes as a shop prints them and as a shopper writes them."""

from random import Random

import pytest

from intent.synth import size
from intent.synth.language import available, load
from intent.synth.shelf import SIZE


@pytest.mark.parametrize(
    ("amount", "style", "code", "text"),
    [
        ("500g", "plain", "de", "500g"),
        ("500g", "spaced", "de", "500 g"),
        ("500g", "brackets", "en", "(500 g)"),
        ("6x330ml", "local", "fr", "6 x 33 cl"),
        ("330ml", "spaced", "fr", "330 ml"),
        ("1.5L", "local", "de", "1,5 l"),
        ("1.5L", "local", "en", "1.5 l"),
        ("12 pack", "spaced", "de", "12er-Pack"),
        ("XL", "brackets", "de", "XL"),
        ("SPF 30", "local", "en", "SPF 30"),
        ("SIZE 4", "plain", "de", "Gr. 4"),
        ("1000 pieces", "plain", "fr", "1000 pièces"),
    ],
)
def test_a_shop_prints_sizes_in_its_own_way(amount, style, code, text):
    assert size.printed(amount, style, load(code).raw, 0) == text


def test_every_language_handles_sizes_without_an_amount_and_packs():
    for code in available():
        raw = load(code).raw
        assert all("{n}" in text for texts in raw["size_names"].values() for text in texts)
        assert all("{n}" in text for text in raw["pack_names"]) and len(set(raw["pack_names"])) == 6
    spellings = {size.said("SPF 50", load("en"), Random(seed)) for seed in range(400)}
    assert {"factor 50", "SPF 50", "factor fifty"} <= spellings
    assert "Größe vier" in {size.said("SIZE 4", load("de"), Random(seed)) for seed in range(80)}


def test_the_parts_of_a_name_have_no_size_that_a_shop_prints():
    for code in available():
        for way in range(6):
            for amount in ("1000 pieces", "6 cups"):
                text = size.printed(amount, "plain", load(code).raw, way)
                assert not any(c.isdigit() for c in SIZE.sub(" ", f"Zorvex {text}")), (code, text)
