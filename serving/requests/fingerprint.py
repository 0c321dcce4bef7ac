"""What makes two requests the same: the weights, and everything that was decided."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, cast

import numpy as np

from serving.requests.generation import Generation

_decided = attrgetter(*(field.name for field in fields(Generation) if field.name != "model"))
_PLAIN = frozenset({int, float, str, type(None)})


def fingerprint(generation: Generation) -> Hashable:
    """Equal for generations that draw the same bytes.

    Taken over all fields, so that one which is added later counts too, and the digests of the model's graphs.
    """
    model = generation.model
    decided = [value if type(value) in _PLAIN else _frozen(value) for value in _decided(generation)]
    return (model.name, model.digests[generation.version], *decided)


def _frozen(value: Any) -> Hashable:
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    try:
        hash(value)
    except TypeError:
        return _taken_apart(value)
    return cast(Hashable, value)  # values all through are what they are


def _taken_apart(value: Any) -> Hashable:
    if is_dataclass(value):
        return tuple(_frozen(getattr(value, field.name)) for field in fields(value))
    if isinstance(value, Mapping):
        return tuple((key, _frozen(item)) for key, item in sorted(value.items()))
    assert isinstance(value, list | tuple), f"{type(value).__name__} can be no part of a request"
    return tuple(_frozen(item) for item in value)
