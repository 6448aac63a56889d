"""Parse and expand phrase templates.

`(a|b|)` is an alternative, `<rule>` another template by name, and `{slot}` a text from the caller. This module knows no
language and no product.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Literal

Parts = tuple["Part", ...]
# A literal, a slot or rule by name, or alternatives.
Part = str | tuple[Literal["slot", "rule"], str] | tuple[Literal["any"], tuple[Parts, ...]]
Rules = Mapping[str, Sequence[Parts]]
TOKEN = re.compile(r"[()|]|<\w+>|\{\w+\}|[^()|<>{}]+")


def parse(text: str) -> Parts:
    """Return the parts of a template. Raises ValueError if its brackets do not match."""
    tokens = TOKEN.findall(text)
    if "".join(tokens) != text:
        raise ValueError(f"stray bracket in {text!r}")
    branches, rest = _branches(tokens, 0)
    if rest != len(tokens) or len(branches) != 1:
        raise ValueError(f"unbalanced ( | ) in {text!r}")
    return branches[0]


def _branches(tokens: Sequence[str], at: int) -> tuple[list[Parts], int]:
    branches: list[list[Part]] = [[]]
    while at < len(tokens) and tokens[at] != ")":
        token = tokens[at]
        if token == "|":
            branches.append([])
        elif token == "(":
            inner, at = _branches(tokens, at + 1)
            if at >= len(tokens):
                raise ValueError("( without )")
            branches[-1].append(("any", tuple(inner)))
        elif token[0] in "<{":
            branches[-1].append(("rule" if token[0] == "<" else "slot", token[1:-1]))
        else:
            branches[-1].append(token)
        at += 1
    return [tuple(branch) for branch in branches], at


def names(parts: Parts, kind: Literal["slot", "rule"]) -> set[str]:
    """Return the slots (`kind` "slot") or rules (`kind` "rule") in a template, including those in alternatives."""
    of_kind: set[str] = set()
    for part in parts:
        if isinstance(part, str):
            continue
        if part[0] == "any":
            of_kind = of_kind.union(*(names(branch, kind) for branch in part[1]))
        elif part[0] == kind:
            of_kind.add(part[1])
    return of_kind


def literals(parts: Parts) -> str:
    """Return the template's own words, including those of all its alternatives."""
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif part[0] == "any":
            texts += [literals(branch) for branch in part[1]]
    return " ".join(texts)


def expand(parts: Parts, rng: Random, rules: Rules, fill: Callable[[str], str]) -> str:
    """Return the text of a template with random alternatives. `fill` returns a slot's text."""
    out: list[str] = []
    _expand(parts, rng.random, rules, fill, out)
    return "".join(out)


def _expand(parts: Parts, random: Callable[[], float], rules: Rules, fill: Callable[[str], str], out: list[str]) -> None:
    for part in parts:
        if isinstance(part, str):
            out.append(part)
        elif part[0] == "slot":
            out.append(fill(part[1]))
        else:
            choices = part[1] if part[0] == "any" else rules[part[1]]
            _expand(choices[int(random() * len(choices))], random, rules, fill, out)
