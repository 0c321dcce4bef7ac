"""Rules as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml


@dataclass(frozen=True, kw_only=True)
class Record:
    """A series that is computed beforehand."""

    name: str
    """level:metric:operations"""
    expr: str
    """In PromQL."""

    def rule(self) -> dict[str, Any]:
        """As the file has it."""
        return {"record": self.name, "expr": self.expr}


@dataclass(frozen=True, kw_only=True)
class Alert:
    """What somebody is told of."""

    name: str
    """Also the heading of what to do, in docs/observability.md."""
    expr: str
    """In PromQL; each series of its result is an alert."""
    summary: str
    """In a sentence, with Prometheus' templates."""
    after: str = "0m"
    """How long it has to be so."""
    severity: str = "ticket"
    """`page` or `ticket`."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """More labels, to tell alerts of one name apart."""

    def rule(self) -> dict[str, Any]:
        """As the file has it."""
        return {
            "alert": self.name,
            "expr": self.expr,
            **({} if self.after == "0m" else {"for": self.after}),
            "labels": {"severity": self.severity, **self.labels},
            "annotations": {
                "summary": self.summary,
                "runbook": f"docs/observability.md#{self.name.lower()}",
            },
        }


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rules that are evaluated one after the other."""

    name: str
    """Of the group."""
    rules: Sequence[Record | Alert]
    """In their order."""


def to_yaml(groups: Sequence[Group]) -> str:
    """A rule file."""
    document = {
        "groups": [{"name": group.name, "rules": [rule.rule() for rule in group.rules]} for group in groups]
    }
    head = "# Written by `python -m monitoring`; do not edit.\n"
    return head + yaml.dump(document, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)


class _Dumper(yaml.SafeDumper):
    """Expressions of several lines as blocks."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
