"""Read text settings as they are written, even if YAML or Hydra would read a number or a boolean. Accept old names of settings.

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
# Old names of settings, and of their values, that work for one more version, on command lines and in YAML files.
RENAMED = {
    "codec": "output_format",
    "codecs": "output_formats",
    "engine.parity_messages": "engine.golden_messages",
    "engine.parity_disagreement": "engine.golden_disagreement",
    "gate.nights": "gate.runs",
    "night": "run_rows",
    "nights": "runs",
}
RENAMED_FORMAT = ("pointing", "entity_first")
# Characters of Hydra's grammar. A value with one of them keeps the meaning that Hydra gives it.
GRAMMAR = set("=[]{}()'\"\\")


def arguments(overrides: Sequence[str], config: type) -> list[str]:
    """Quote the values of text settings of `config` on a command line, if Hydra would not read them as written.

    Raises ConfigError, with the quotes to use, if an argument is not a valid override.
    """
    plain = [each.startswith(("-", "hydra.")) or "=" not in each for each in overrides]
    return [each if as_is else _override(_renamed(each), config) for each, as_is in zip(overrides, plain, strict=True)]


def _renamed(override: str) -> str:
    """Replace old names of the setting and its value by the current ones, with a warning."""
    key, value = override.split("=", 1)
    path = key.lstrip("+")
    if path not in RENAMED:
        return override
    current = f"{key.removesuffix(path)}{RENAMED[path]}={value.replace(*RENAMED_FORMAT)}"
    _warn(override, current)
    return current


def _rename_keys(node: yaml.Node, above: str = "") -> None:
    """Replace old names of settings in a YAML file, as `_renamed` does. A file of a group has names without the group."""
    if not isinstance(node, yaml.MappingNode):
        return
    names = RENAMED if above else {old.rpartition(".")[2]: current for old, current in RENAMED.items()} | RENAMED
    for key, value in node.value:
        path = f"{above}{key.value}"
        if path in names:
            key.value = names[path].rpartition(".")[2]
            _warn(f"{path}, line {key.start_mark.line + 1} of a YAML file", key.value)
            for each in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if isinstance(each, yaml.ScalarNode):
                    each.value = each.value.replace(*RENAMED_FORMAT)
        _rename_keys(value, f"{path}.")


def _warn(old: str, current: str) -> None:
    print(f"warning: {old}: the setting was renamed; use {current}", file=sys.stderr)


def keep_text(config: type) -> None:
    """Make OmegaConf read the text settings of `config` in YAML files as text."""
    _names.update(_texts(config))
    # OmegaConf has no public way to set its loader.
    _utils.get_yaml_loader = _loader


def _loader() -> type:
    class Loader(_omegaconfs_loader()):  # type: ignore[misc]  # OmegaConf makes the class in a function
        def get_single_node(self) -> yaml.Node | None:
            if node := super().get_single_node():
                _rename_keys(node)
            return node

        def construct_mapping(self, node: yaml.Node, deep: bool = False) -> Any:
            for key, value in node.value:
                if key.value in _names:
                    _retag(value)
            return super().construct_mapping(node, deep=deep)

    return Loader


def _retag(node: yaml.Node) -> None:
    """Mark a plain value as text, except null. In a list of text, null is text too."""
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
        raise ConfigError(key, value, f"must be quoted: '{quoted}'") from None
    return override


def _written(value: str) -> str:
    """Quote a value, or each value of a list or sweep, that Hydra would not read as the same text."""
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
    """Return whether a path of names and list indexes in `config` leads to text or to a list of text."""
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
