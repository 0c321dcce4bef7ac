"""Import strings of the registries, resolved on use."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

from serving.errors import one_of


def resolve(registry: Mapping[str, str], name: str, what: str) -> Any:
    """The object that `registry` names `name`; a ValueError with the names that there are otherwise."""
    if name not in registry:
        raise ValueError(f"{what} {name!r} is not one of {one_of(registry, name)}")
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
