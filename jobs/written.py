"""Settings as they are written: text stays text, where YAML or Hydra would read a number or a boolean.

`output=2026_11_23` names that folder, not 20261123; a label `no` is no boolean.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import is_dataclass
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import _utils

from intent.errors import ConfigError

TEXT_TAG, NULL_TAG = (f"tag:yaml.org,2002:{kind}" for kind in ("str", "null"))
_names: set[str] = set()
_omegaconfs_loader = _utils.get_yaml_loader
# What these mean in a value without quotes depends on Hydra's grammar: such a value is never guessed.
GRAMMAR = set("=[]{}()'\"\\")


def arguments(given: Sequence[str], config: type) -> list[str]:
    """A command line with quotes around what Hydra would not read as written, for settings of `config` that are text.

    Raises ConfigError, with the quotes to use, for what is no override at all.
    """
    return [_override(each, config) if "=" in each and not each.startswith(("-", "hydra.")) else each for each in given]


def keep_text(config: type) -> None:
    """From now on YAML files are read with every value of a setting of `config` that is text as the text that it is."""
    _names.update(_texts(config))
    # OmegaConf has no other way in.
    _utils.get_yaml_loader = _loader


def _loader() -> type:
    class Loader(_omegaconfs_loader()):  # type: ignore[misc]  # OmegaConf makes the class in a function
        def construct_mapping(self, node: yaml.Node, deep: bool = False) -> Any:
            for key, value in node.value:
                if key.value in _names:
                    _retag(value)
            return super().construct_mapping(node, deep=deep)

    return Loader


def _retag(node: yaml.Node) -> None:
    """A plain value is text, but for null; in a list, where null is none of the values, it is text too."""
    if isinstance(node, yaml.SequenceNode):
        for each in node.value:
            if isinstance(each, yaml.ScalarNode) and each.style is None:
                each.tag = TEXT_TAG
    elif isinstance(node, yaml.ScalarNode) and node.style is None and node.tag != NULL_TAG:
        node.tag = TEXT_TAG


def _override(override: str, config: type) -> str:
    key, value = override.split("=", 1)
    path = key.lstrip("+~").split("@")[0].split(".")
    if _is_text(config, path):
        override = f"{key}={_written(value.strip())}"
    try:
        OverridesParser.create().parse_override(override)
    except HydraException as error:
        if not value or value[0] in "'\"[{":
            raise ConfigError(key, value, f"cannot be read: {str(error).splitlines()[0]}") from None
        quoted = f"{key}={json.dumps(value, ensure_ascii=False)}"
        raise ConfigError(key, value, f"has to be in quotes of its own: '{quoted}'") from None
    return override


def _written(value: str) -> str:
    """A value, or a list or sweep of values, each in quotes where Hydra would read another text or none."""
    inner = value[1:-1] if value.startswith("[") and value.endswith("]") else value
    if not inner or GRAMMAR & set(inner):
        return value
    items = ",".join(map(_item, inner.split(",")))
    return f"[{items}]" if inner is not value else items


def _item(text: str) -> str:
    text = text.strip()
    try:
        read = OverridesParser.create().parse_override(f"x={text}").value()
    except HydraException:
        read = ...
    return text if read is None or read == text else f'"{text}"'


def _is_text(config: type, path: Sequence[str]) -> bool:
    """Whether a path of names and list indexes in the configuration class `config` leads to text, or a list of it."""
    kind: Any = config
    for name in path:
        kind = _plain(kind)
        if is_dataclass(kind):
            kind = get_type_hints(kind).get(name)
        elif get_origin(kind) is list and name.isdecimal():
            (kind,) = get_args(kind)
        else:
            return False
    return _plain(kind) in (str, list[str])


def _texts(kind: Any) -> Iterator[str]:
    """The names of all fields that are text or lists of it, at any depth."""
    for name, hint in get_type_hints(kind).items():
        inner = _plain(hint)
        if inner in (str, list[str]):
            yield name
        for each in (inner, *get_args(inner)):
            if is_dataclass(each):
                yield from _texts(each)


def _plain(kind: Any) -> Any:
    """The type without None."""
    if get_origin(kind) is UnionType:
        kinds = [each for each in get_args(kind) if each is not NoneType]
        return kinds[0] if len(kinds) == 1 else kind
    return kind
