"""Templates escape every value and require all of them. A chart's scale puts values where a reader expects them."""

import ast
import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from intent.html import render
from intent.html.charts import Scale

PACKAGE = Path(__file__).parents[2] / "intent"
EVIL = "<script>alert(1)</script>\"'&"


def test_a_value_is_text_and_a_missing_one_is_an_error():
    values = {"width": 9, "height": 9, "label": 9}
    drawn = render("synth/chart.svg.j2", **values, panels=[{"title": EVIL, "top": 0, "names": [EVIL], "rows": []}])
    assert "<script" not in drawn and drawn.count("&lt;script&gt;alert(1)&lt;/script&gt;&#34;&#39;&amp;") == 2
    with pytest.raises(UndefinedError, match="'panels' is undefined"):
        render("synth/chart.svg.j2", **values)


def test_markup_stands_in_templates_only():
    markup = re.compile("<(a|circle|div|g|h[1-6]|html|i|li|line|p|path|rect|span|svg|t[dhr]|table|text|ul)( [a-z]+=|/?>)")
    assert markup.search('<td class="words">') and markup.search("<p>")
    for path in PACKAGE.rglob("*.py"):
        texts = (node.value for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Constant))
        assert not [text for text in texts if isinstance(text, str) and markup.search(text)], path


@pytest.mark.parametrize(
    ("values", "ticks"),
    [((10, 100), [10, 20, 50, 100]), ((2, 8), [2, 4, 6, 8]), ((5,), [4.6, 4.8, 5.0, 5.2, 5.4]), ((0, 10), [0, 5, 10])],
)
def test_an_axis_has_round_values_within_the_plot_and_powers_of_ten_if_values_are_far_apart(values, ticks):
    scale = Scale.around(values, 40, 440)
    assert scale.ticks(5) == pytest.approx(ticks)
    positions = [scale.at(tick) for tick in ticks]
    assert positions == sorted(positions) and positions[0] >= 40 and positions[-1] <= 440


def test_a_scale_runs_from_its_start_to_its_end_in_either_direction():
    assert [Scale(0, 1, 280, 12).at(value) for value in (0, 0.5, 1)] == [280, 146, 12]
    assert [Scale(1, 100, 0, 10, log=True).at(value) for value in (1, 10, 100)] == [0, 5, 10]
