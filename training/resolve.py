"""Import strings of the registries, resolved on use."""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Mapping
from typing import Any


def resolve(registry: Mapping[str, str], name: str, what: str) -> Any:
    """The object that `registry` names `name`; a KeyError-like message with the nearest name otherwise."""
    if name not in registry:
        near = difflib.get_close_matches(name, registry, n=1, cutoff=0.5)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ValueError(f"{what} {name!r} is not one of {', '.join(registry)}{hint}")
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)
