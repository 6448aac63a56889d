"""Read settings as they are written: text stays text where YAML or Hydra would read a number or a boolean.

`output=2026_11_23` names that folder, not 20261123. A label `no` is not a boolean.
"""

import json
import sys
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
# Names of settings, and of their values, that go on working for one version.
RENAMED = {"codec": "output_format", "codecs": "output_formats"}
RENAMED_FORMAT = ("pointing", "entity_first")
# Their meaning in a value without quotes depends on Hydra's grammar, so such a value is never guessed.
GRAMMAR = set("=[]{}()'\"\\")


def arguments(given: Sequence[str], config: type) -> list[str]:
    """Quote the values of a command line that Hydra would not read as written, for text settings of `config`.

    Raises ConfigError, with the quotes to use, for what is not an override.
    """
    plain = [each.startswith(("-", "hydra.")) or "=" not in each for each in given]
    return [each if as_is else _override(_renamed(each), config) for each, as_is in zip(given, plain, strict=True)]


def _renamed(override: str) -> str:
    """Return the override with the names that its setting and its value have today, and warn about old ones."""
    key, value = override.split("=", 1)
    if key not in RENAMED:
        return override
    now = f"{RENAMED[key]}={value.replace(*RENAMED_FORMAT)}"
    print(f"warning: {override}: the setting has another name; use {now}", file=sys.stderr)
    return now


def keep_text(config: type) -> None:
    """Read every value of a text setting of `config` in YAML files as text from now on."""
    _names.update(_texts(config))
    # OmegaConf offers no other way.
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
    """Make a plain value text, except null. In a list, where null is not a value, it becomes text too."""
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
    """Quote a value, or each value of a list or sweep, if Hydra would read another text or none."""
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
    """Return whether a path of names and list indexes in the configuration class `config` leads to text, or to a
    list of text.
    """
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
    """Return the names of all fields that are text or lists of text, at any depth."""
    for name, hint in get_type_hints(kind).items():
        inner = _plain(hint)
        if inner in (str, list[str]):
            yield name
        for each in (inner, *get_args(inner)):
            if is_dataclass(each):
                yield from _texts(each)


def _plain(kind: Any) -> Any:
    """Return the type without None."""
    if get_origin(kind) is UnionType:
        kinds = [each for each in get_args(kind) if each is not NoneType]
        return kinds[0] if len(kinds) == 1 else kind
    return kind
