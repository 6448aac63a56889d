"""Noise changes the form of a message and never its meaning."""

from random import Random

import pytest

from intent.dataset.deduplicate import message_key
from intent.synth import noise
from intent.synth.grammar import expand, names, parse
from intent.synth.language import load
from intent.synth.noise import voice


def test_a_slip_stays_within_one_word_and_spares_numbers_and_sizes():
    for seed in range(200):
        slipped = noise.typo("add 12 bottles of 1L milk", Random(seed)).split()
        assert len(slipped) == 6 and [slipped[i] for i in (0, 1, 3, 4, 5)] == ["add", "12", "of", "1L", "milk"]


def test_accents_are_stripped_or_spelled_out():
    assert noise.without_accents("Müsli, Käse, đus, œuf") == "Musli, Kase, dus, oeuf"
    assert noise.without_accents("Müsli, Käse", digraphs=True) == "Muesli, Kaese"


def test_voice_says_numbers_and_drops_punctuation():
    transcripts = {noise.voice("Add 27 apples, please!", load("en"), Random(seed)) for seed in range(50)}
    assert "add twenty-seven apples please" in transcripts and not any(c in text for text in transcripts for c in "27,!A")


def test_voice_keeps_a_number_together():
    assert "1,5" in voice("add 2 Wasser 1,5L, please", load("en"), Random(0)).split("wasser")[1]


def test_a_mark_that_is_a_letter_of_its_script_stays():
    for a, b in (("ビールを追加", "ヒールを追加"), ("दो", "दे"), ("เพิ่มนม", "เพิมนม")):
        assert message_key(a) != message_key(b)
    assert message_key("Crème brûlée!") == message_key("creme brulee")


def test_voice_leaves_a_number_whose_word_depends_on_the_noun():
    assert "2" in noise.voice("dodaj 2 mlijeka", load("hr"), Random(1)).split()


def test_a_template_expands_its_alternatives_rules_and_slots():
    rules = {"verb": [parse("add"), parse("put (in|on)")]}
    parts = parse("(please |)<verb> {np}")
    expansions = {expand(parts, Random(seed), rules, lambda slot: f"[{slot}]") for seed in range(60)}
    assert expansions == {f"{please}{verb} [np]" for please in ("", "please ") for verb in ("add", "put in", "put on")}
    assert names(parts, "slot") == {"np"} and names(parts, "rule") == {"verb"}


@pytest.mark.parametrize("text", ["(a|b", "a|b", "a)", "{np", "<verb"])
def test_a_broken_template_is_refused(text):
    with pytest.raises(ValueError):
        parse(text)
