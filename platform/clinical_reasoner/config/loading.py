"""Read a YAML config: its `defaults:` files, the file itself, then `dotted.key=value` overrides; check it strictly.

Every error names the dotted key, the file it came from and what is allowed there; all errors of one load are
reported together, one line each.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, TypeVar, Union, cast, get_args, get_origin

import yaml
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from pydantic import BaseModel, RootModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails, to_json

from clinical_reasoner.errors import UserError

M = TypeVar("M", bound=BaseModel)
Place = tuple[str, ...]

COMMAND_LINE = "command line"


class ConfigError(UserError):
    """A config cannot be used; each line of the message names the key or file, its source and the fix."""


@dataclass(frozen=True)
class CliArgs:
    """What every job takes on its command line."""

    config: str
    """Path of the YAML file."""
    overrides: tuple[str, ...]
    """`dotted.key=value`, applied in order."""
    dry_run: bool
    """Print the resolved config and stop."""


def load_config(model: type[M], file: str | Path, overrides: Sequence[str] = ()) -> M:
    """Read, merge, resolve and validate. Raises ConfigError with one line for each error.

    Values keep their YAML type: `"3"` is no number, `1` is no bool and `2.0` is no integer.
    """
    layers = _Layers(str(file))
    layers.add_file(Path(file), named_by=())
    if layers.problems:
        raise ConfigError("\n".join(layers.problems))
    for override in overrides:
        layers.add_override(override)
    keys = layers.resolve()
    try:
        # Strict JSON rules fit YAML: a list may fill a tuple and a text may fill a path or an enum, but nothing else
        # changes its type.
        config = model.model_validate_json(to_json(keys, inf_nan_mode="constants"), strict=True)
    except ValidationError as error:
        raise ConfigError("\n".join([*layers.problems, *_explain(error, model, layers)])) from error
    if layers.problems:
        raise ConfigError("\n".join(layers.problems))
    return config


def to_yaml(config: BaseModel) -> str:
    """The resolved config as YAML, keys in the order of the models; `load_config` reads it back to an equal config."""
    text = json.dumps(config.model_dump(mode="json")).replace("${", r"\\${")  # else it would be resolved once more
    return OmegaConf.to_yaml(OmegaConf.create(json.loads(text)))


def parse_cli(argv: Sequence[str] | None, description: str) -> CliArgs:
    """Parse `--config FILE [dotted.key=value ...] [--dry-run]`, in any order."""
    return _cli_args(_cli_parser(description).parse_intermixed_args(argv))


def load_from_cli(model: type[M], argv: Sequence[str] | None, description: str) -> M:
    """The config that a job's command line asks for; exits with 2 on a bad config and with 0 after `--dry-run`."""
    return load_with_options(model, argv, description, lambda parser: None)[0]


def load_with_options(
    model: type[M],
    argv: Sequence[str] | None,
    description: str,
    add_options: Callable[[argparse.ArgumentParser], object],
) -> tuple[M, argparse.Namespace]:
    """As `load_from_cli`, for a job that asks for more than a config says: `add_options` adds its options to the
    parser, and the namespace has their values."""
    parser = _cli_parser(description)
    add_options(parser)
    options = parser.parse_intermixed_args(argv)
    args = _cli_args(options)
    try:
        config = load_config(model, args.config, args.overrides)
    except ConfigError as error:
        print(error, file=sys.stderr)
        raise SystemExit(2) from error
    if args.dry_run:
        print(to_yaml(config), end="")
        raise SystemExit(0)
    return config, options


def _cli_parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    parser.add_argument("--config", required=True, metavar="FILE", help="YAML file")
    parser.add_argument("overrides", nargs="*", metavar="dotted.key=value", help="replaces a value of the file")
    parser.add_argument("--dry-run", action="store_true", help="print the resolved config and stop")
    return parser


def _cli_args(args: argparse.Namespace) -> CliArgs:
    return CliArgs(config=args.config, overrides=tuple(args.overrides), dry_run=args.dry_run)


class _Layers:
    """Keys merged layer by layer, with the source that each leaf finally came from."""

    def __init__(self, main: str) -> None:
        self.main = main
        self.keys: dict[Any, Any] = {}
        self.problems: list[str] = []
        self.unresolved: list[Place] = []
        self._sources: dict[Place, str] = {}

    def add_file(self, file: Path, named_by: tuple[Path, ...]) -> None:
        """Merge the files under `defaults:` in order, then the file's own keys."""
        asked = f"{named_by[-1]}: `defaults`:" if named_by else "config:"
        if file.resolve() in [other.resolve() for other in named_by]:
            circle = " -> ".join(str(one) for one in (*named_by, file))
            self.problems.append(f"{asked} {file} closes a circle: {circle}; remove one of these entries")
            return
        if not file.is_file():
            self.problems.append(f"{asked} {file} does not exist (seen from {Path.cwd()}); correct the path")
            return
        keys = self._read(file)
        defaults = keys.pop("defaults", None) or []
        if not isinstance(defaults, list) or not all(isinstance(entry, str) for entry in defaults):
            self.problems.append(f"{file}: `defaults` is {_shown(defaults)}; write a list of paths below {file.parent}")
            return
        for entry in defaults:
            self.add_file(Path(os.path.normpath(file.parent / entry)), (*named_by, file))
        self._merge(keys, str(file))

    def add_override(self, text: str) -> None:
        """Merge one `dotted.key=value`; a number in the key is a place in a list."""
        key, equals, _ = text.partition("=")
        place = tuple(key.split("."))
        if not equals or not all(place):
            self.problems.append(f"{COMMAND_LINE}: {text!r} is no override; write dotted.key=value")
            return
        try:
            layer = _plain(OmegaConf.from_dotlist([text]))
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            self.problems.append(f"{COMMAND_LINE}: {text!r}: the value is not readable: {_reason(error)}; quote it")
            return
        if any(part.isdigit() for part in place):
            self._set_in_list(key, place, layer)
        else:
            self._merge(layer, COMMAND_LINE)

    def resolve(self) -> dict[str, Any]:
        """All keys with their interpolations replaced; what cannot be resolved becomes None and a problem."""
        return cast(dict[str, Any], self._resolve(OmegaConf.create(self.keys), (), ()))

    def source(self, place: Place) -> str:
        """The file (or command line) that last set this key, a key below it or, failing both, one above it."""
        below = [source for known, source in self._sources.items() if known[: len(place)] == place]
        above = [self._sources[place[:end]] for end in range(len(place)) if place[:end] in self._sources]
        return (below or above or [self.main])[-1]

    def _read(self, file: Path) -> dict[Any, Any]:
        try:
            loaded = OmegaConf.load(file)
            if isinstance(loaded, DictConfig):
                return _plain(loaded)
            self.problems.append(f"{file}: holds a list; a config is a mapping of `key: value` lines")
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            line = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
            self.problems.append(f"{file}{line}: not readable as YAML: {error.problem}")
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            self.problems.append(f"{file}: not readable as a mapping of `key: value` lines: {_reason(error)}")
        except OmegaConfBaseException as error:
            self.problems.append(f"{file}: {error.full_key}: not readable as an interpolation: {_reason(error)}")
        return {}

    def _merge(self, layer: dict[Any, Any], source: str) -> None:
        self._record(self.keys, layer, (), source)
        self.keys = _plain(OmegaConf.merge(self.keys, layer))

    def _record(self, below: dict[Any, Any], layer: dict[Any, Any], path: Place, source: str) -> None:
        for key, value in layer.items():
            place = (*path, str(key))
            old = below.get(key)
            if isinstance(old, dict | list) and not isinstance(value, type(old)):
                # OmegaConf refuses to merge a mapping with a list; the later layer wins, and validation judges it.
                del below[key]
                old = None
            if isinstance(value, dict) and (value or isinstance(old, dict)):
                self._record(old if isinstance(old, dict) else {}, value, place, source)
            else:
                self._came_from(place, source)

    def _came_from(self, place: Place, source: str) -> None:
        self._sources = {known: old for known, old in self._sources.items() if known[: len(place)] != place}
        self._sources[place] = source

    def _set_in_list(self, key: str, place: Place, layer: Any) -> None:
        value = layer
        for part in place:
            value = value[part]
        config = OmegaConf.create(self.keys)
        try:
            OmegaConf.update(config, key, value, merge=True)
        except (ValueError, LookupError, TypeError) as error:
            self.problems.append(f"{COMMAND_LINE}: {key}: no such place in the list: {_reason(error)}")
            return
        self.keys = _plain(config)
        self._came_from(place, COMMAND_LINE)

    def _resolve(self, node: Any, path: Place, above: tuple[int, ...]) -> Any:
        if not isinstance(node, DictConfig | ListConfig):
            return node
        keys: list[Any] = list(range(len(node))) if isinstance(node, ListConfig) else list(node)
        values: dict[str, Any] = {}
        for key in keys:
            place = (*path, str(key))
            try:
                value = node[key]
                if id(value) in (*above, id(node)):
                    raise OmegaConfBaseException("interpolations form a circle")
                values[str(key)] = self._resolve(value, place, (*above, id(node)))
            except OmegaConfBaseException as error:
                values[str(key)] = None
                self.unresolved.append(place)
                self.problems.append(self._unresolved(place, error))
        return list(values.values()) if isinstance(node, ListConfig) else values

    def _unresolved(self, place: Place, error: OmegaConfBaseException) -> str:
        where = f"{'.'.join(place)} ({self.source(place)})"
        if isinstance(error, MissingMandatoryValue):
            return f"{where}: `???` stands for a missing value; set it there or with {'.'.join(place)}=VALUE"
        fix = "correct the name, or write that key into a file (defaults of the models are not seen here)"
        return f"{where}: cannot be resolved: {_reason(error)}; {fix}"


def _explain(error: ValidationError, model: type[BaseModel], layers: _Layers) -> Iterator[str]:
    """One line for each key with an error. Members of a union that all refuse a value share its line."""
    lines: dict[str, list[str]] = {}
    meant: set[Place] = set()
    # Unknown keys first: the key that a misspelt one was meant to be is then not called missing as well.
    for details in sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden"):
        place, owner = _locate(model, details)
        if details["type"] == "missing" and place in meant:
            continue
        if any(place[: len(known)] == known for known in layers.unresolved):
            continue
        where = f"{'.'.join(place)} ({layers.source(place)})" if place else layers.main
        if details["type"] == "extra_forbidden":
            valid = list(owner.model_fields) if owner else []
            near = get_close_matches(place[-1], valid, n=1)
            meant |= {(*place[:-1], key) for key in near}
            hint = f"did you mean {'.'.join((*place[:-1], near[0]))}?" if near else f"valid here: {', '.join(valid)}"
            reason = f"unknown key; {hint}"
        elif details["type"] in ("missing", "union_tag_not_found"):
            where = ".".join(place)
            reason = f"missing; set it in {layers.main} or with {where}=VALUE"
        else:
            value, reason = _refused(details)
            where = f"{'.'.join(place)} = {value} ({layers.source(place)})" if place and value else where
        if reason not in lines.setdefault(where, []):
            lines[where].append(reason)
    for where, reasons in lines.items():
        yield f"{where}: {' or '.join(reasons)}"


def _refused(details: ErrorDetails) -> tuple[str, str]:
    """A bad value as it is shown, empty for a mapping, and what is allowed instead."""
    if details["type"] == "union_tag_invalid":
        return _shown(details["ctx"]["tag"]), f"should be one of {details['ctx']['expected_tags']}"
    reason = details["msg"].removeprefix("Input ").removeprefix("Value error, ")
    reason = reason.replace("an object", "a mapping").replace("a valid array", "a list")
    return "" if isinstance(details["input"], dict) else _shown(details["input"]), reason


def _locate(model: type[BaseModel], details: ErrorDetails) -> tuple[Place, type[BaseModel] | None]:
    """Place of an error in the files, and the model to which the last key of the place belongs."""
    place: Place = ()
    owner: type[BaseModel] | None = None
    kind: Any = model
    tag = ""
    for part in details["loc"]:
        members, tag = _members(kind, tag)
        if len(members) > 1:
            # Pydantic writes the chosen member of a union into the place, where the file has no key.
            kind = next((member for member in members if _is_called(member, tag, str(part))), None)
            tag = ""
        elif part != "[key]":
            place = (*place, str(part))
            owner = members[0] if _is_model(members[0]) else None
            kind, tag = _below(members[0], part)
    if details["type"].startswith("union_tag"):
        place = (*place, details["ctx"]["discriminator"].strip("'"))
    return place, owner


def _members(kind: Any, tag: str) -> tuple[list[Any], str]:
    """Members of a union without None (or the one type itself), and the key that tells them apart."""
    if get_origin(kind) is Annotated:
        inner, *notes = get_args(kind)
        tags = [note.discriminator for note in notes if isinstance(note, FieldInfo)]
        return _members(inner, next((name for name in tags if isinstance(name, str)), tag))
    if _is_model(kind) and issubclass(kind, RootModel):
        root = kind.model_fields["root"]
        return _members(root.annotation, str(root.discriminator or tag))
    if get_origin(kind) not in (Union, UnionType):
        return [kind], tag
    found = [_members(member, tag) for member in get_args(kind) if member is not NoneType]
    return [member for members, _ in found for member in members], next((name for _, name in found if name), "")


def _is_called(member: Any, tag: str, name: str) -> bool:
    if tag and _is_model(member):
        field = member.model_fields.get(tag)
        return field is not None and name in map(str, get_args(field.annotation))
    own = getattr(member, "__name__", "")
    return name == own or name.endswith(f", {own}]")


def _below(kind: Any, part: int | str) -> tuple[Any, str]:
    """Type of a field, item or value of this type, and the discriminator of the field."""
    if _is_model(kind):
        field = kind.model_fields.get(str(part))
        return (field.annotation, field.discriminator or "") if field else (None, "")
    args = get_args(kind)
    if isinstance(part, int) and part < len(args) and Ellipsis not in args:
        return args[part], ""
    return (args[0] if isinstance(part, int) else args[-1], "") if args else (None, "")


def _is_model(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _plain(config: Any) -> dict[Any, Any]:
    return cast(dict[Any, Any], OmegaConf.to_container(config, resolve=False))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _reason(error: Exception) -> str:
    return " ".join(str(error).split("\n")[0].split())
