"""What makes two requests the same: the weights, and everything that was decided."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, cast

import numpy as np

from serving.catalog import PublicModel
from serving.requests.generation import Generation


def fingerprint(generation: Generation) -> Hashable:
    """Equal for generations that draw the same bytes.

    Taken over all fields, so that one which is added later counts too, and the digests of the model's graphs.
    """
    return tuple(_frozen(getattr(generation, field.name), generation.version) for field in fields(generation))


def _frozen(value: Any, version: int) -> Hashable:
    if isinstance(value, PublicModel):
        digests = sorted((m.graph, m.versions[version].sha256) for m in value.graphs.values())
        return (value.name, tuple(digests))
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if is_dataclass(value) and not isinstance(value, type):
        with suppress(TypeError):  # values all through are what they are, and need not be taken apart
            hash(value)
            return cast(Hashable, value)
        return tuple(_frozen(getattr(value, field.name), version) for field in fields(value))
    if isinstance(value, Mapping):
        return tuple((key, _frozen(item, version)) for key, item in sorted(value.items()))
    if isinstance(value, list | tuple):
        return tuple(_frozen(item, version) for item in value)
    assert isinstance(value, Hashable)
    return value
