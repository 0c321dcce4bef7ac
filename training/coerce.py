"""Typed values from configuration files and command lines, by the annotations of frozen dataclasses."""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

TRUTHS = {
    "true": True,
    "yes": True,
    "on": True,
    "1": True,
    "false": False,
    "no": False,
    "off": False,
    "0": False,
}


class ConfigError(ValueError):
    """A setting that does not exist or cannot have this value: names the key, the value and the remedy."""


class Text(str):
    """A value as typed on the command line, which may still become a number, a truth or a list."""

    __slots__ = ()


def build(cls: type, values: Mapping[str, Any], prefix: str = "") -> Any:
    """An instance of the dataclass `cls` from plain values, unnamed fields keeping their defaults.

    `prefix` stands before the keys in errors, as in `diffusion.lr`.
    """
    hints = get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for name in values:
        if name not in names:
            raise unknown_key(prefix + name, [prefix + known for known in names])
    typed = {name: coerce(value, hints[name], prefix + name) for name, value in values.items()}
    try:
        return cls(**typed)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{prefix.rstrip('.') or 'configuration'}: {error}") from error


def unknown_key(key: str, known: Iterable[str]) -> ConfigError:
    """The error for a key that is none of `known`, with the nearest that is."""
    known = list(known)
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.6)
    if not near:
        last = {name.rpartition(".")[2]: name for name in known}
        near = [last[m] for m in difflib.get_close_matches(key.rpartition(".")[2], last, n=1, cutoff=0.6)]
    hint = f"; did you mean {near[0]!r}?" if near else f"; the settings are {', '.join(known)}"
    return ConfigError(f"there is no setting {key!r}{hint}")


def coerce(value: Any, annotation: Any, key: str) -> Any:
    """`value` as the annotated type, or a ConfigError that says what `key` may be.

    Values from files must have the type already (an integer passes for a float, a list for a tuple); a `Text`
    is read as the type wants it.
    """
    try:
        return _coerce(value, annotation)
    except ConfigError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{key} = {_shown(value)} is not possible: it must be {allowed(annotation)}"
        ) from error


def allowed(annotation: Any) -> str:
    """What values an annotation allows, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(allowed(a) for a in arguments)
    if origin is Literal:
        return "one of " + ", ".join(str(a) for a in arguments)
    if origin is tuple:
        if arguments[-1] is Ellipsis:
            return f"a list, each item {allowed(arguments[0])}"
        return f"a list of {len(arguments)}: " + ", ".join(allowed(a) for a in arguments)
    if origin in (dict, Mapping):
        return "a table"
    words = {int: "an integer", float: "a number", bool: "true or false", str: "a text", type(None): "none"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def plain(value: Any) -> Any:
    """A dataclass, tuple, path or mapping as what JSON and TOML hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return str(value) if isinstance(value, Path) else value


def _coerce(value: Any, annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if annotation is Any:
        return guess(value)
    if origin in (Union, types.UnionType):
        return _coerce_union(value, arguments)
    if origin is Literal:
        for choice in arguments:
            if value == choice or (isinstance(value, Text) and str(value) == str(choice)):
                return choice
        raise ValueError(value)
    if origin is tuple:
        return _coerce_tuple(value, arguments)
    if origin in (dict, Mapping):
        if not isinstance(value, Mapping):
            raise TypeError(value)
        item = arguments[1] if arguments else Any
        return {str(k): _coerce(v, item) for k, v in value.items()}
    if dataclasses.is_dataclass(annotation) and isinstance(annotation, type):
        return build(annotation, value)
    return _coerce_scalar(value, annotation)


def _coerce_union(value: Any, choices: tuple[Any, ...]) -> Any:
    if type(None) in choices and (value is None or (isinstance(value, str) and value.lower() == "none")):
        return None
    for choice in choices:
        if choice is not type(None):
            try:
                return _coerce(value, choice)
            except (TypeError, ValueError):
                continue
    raise ValueError(value)


def _coerce_tuple(value: Any, items: tuple[Any, ...]) -> tuple[Any, ...]:
    if isinstance(value, Text):
        inner = value.strip().removeprefix("[").removesuffix("]")
        value = [Text(part.strip().strip("\"'")) for part in inner.split(",") if part.strip()]
    if not isinstance(value, list | tuple):
        raise TypeError(value)
    if items[-1] is Ellipsis:
        return tuple(_coerce(v, items[0]) for v in value)
    if len(value) != len(items):
        raise ValueError(value)
    return tuple(_coerce(v, item) for v, item in zip(value, items, strict=True))


def _coerce_scalar(value: Any, kind: Any) -> Any:
    if kind is bool:
        if isinstance(value, Text):
            if value.lower() in TRUTHS:
                return TRUTHS[value.lower()]
        elif isinstance(value, bool):
            return value
        raise ValueError(value)
    if kind in (int, float):
        if isinstance(value, bool) or not isinstance(value, int | float | Text):
            raise TypeError(value)
        number = float(value)
        if kind is float:
            return number
        if number != int(number):
            raise ValueError(value)
        return int(value) if isinstance(value, int) else int(number)
    if kind in (str, Path):
        if not isinstance(value, str | Path):
            raise TypeError(value)
        return kind(str(value))
    if isinstance(value, kind):
        return value
    raise TypeError(value)


def guess(value: Any) -> Any:
    """A command-line text as the integer, number, truth or list that it looks like."""
    if not isinstance(value, Text):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    if value.startswith("[") and value.endswith("]"):
        return [guess(Text(part.strip())) for part in value[1:-1].split(",") if part.strip()]
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    return str(value).strip("\"'")


def _shown(value: Any) -> str:
    return repr(str(value)) if isinstance(value, str) else repr(value)
