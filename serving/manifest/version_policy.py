"""Which of the versions in a repository are served: Triton's `version_policy`, which both engines obey.

Triton counts the folders that it finds, also one that is only just being published. So a configuration names
the versions that its policy comes to for those that it records, and the policy itself stands beside.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class VersionPolicy:
    """The newest few, some by number, or (with neither) all."""

    latest: int | None = None
    """How many of the newest are served."""
    specific: tuple[int, ...] = ()
    """Versions that are served, by number."""

    def __post_init__(self) -> None:
        if self.latest is not None and self.specific:
            raise ValueError("a version policy is either latest or specific")
        if self.latest is not None and self.latest < 1:
            raise ValueError(f"version policy latest {self.latest} serves nothing: it is 1 or more")
        if any(version < 1 for version in self.specific):
            raise ValueError(f"version policy {list(self.specific)}: versions count from 1")

    @classmethod
    def parse(cls, text: str) -> VersionPolicy:
        """The policy in a word, as `str` gives it: `latest:2`, `all` or `1,3`. ValueError for others."""
        kind, _, number = text.partition(":")
        if kind == "latest" and number:
            return cls(latest=int(number))
        return ALL if text == "all" else cls(specific=tuple(int(each) for each in text.split(",")))

    def __str__(self) -> str:
        if self.specific:
            return ",".join(map(str, self.specific))
        return "all" if self.latest is None else f"latest:{self.latest}"

    def wanted(self, versions: Iterable[int]) -> tuple[int, ...]:
        """Those of `versions` that are served, rising."""
        there = sorted(versions)
        if self.specific:
            return tuple(version for version in there if version in self.specific)
        return tuple(there if self.latest is None else there[-self.latest :])


ALL = VersionPolicy()
"""Every version."""

PUBLISHED = VersionPolicy(latest=2)
"""What is published keeps the version before: whoever is half-way through a diffusion ends on it, and a
request may name it."""

TRITON_DEFAULT = VersionPolicy(latest=1)
"""What Triton does where a configuration says nothing."""


def read(config: Any, meant: str | None, versions: Iterable[int]) -> VersionPolicy:
    """The policy in a `ModelConfig` that records `versions`.

    What was `meant` holds where the versions that are named are those that it comes to: a list of others was
    written by hand.
    """
    policy = _declared(config)
    if not policy.specific or meant is None:
        return policy
    asked = VersionPolicy.parse(meant)
    return asked if policy.specific == asked.wanted(versions) else policy


def _declared(config: Any) -> VersionPolicy:
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "latest":
            return VersionPolicy(latest=policy.latest.num_versions or 1)
        case "specific":
            return VersionPolicy(specific=tuple(policy.specific.versions))
        case "all":
            return ALL
    return TRITON_DEFAULT


def write(policy: VersionPolicy, config: Any, versions: Iterable[int]) -> None:
    """Puts the policy into a `ModelConfig` that records `versions`: those of them that it comes to."""
    named = policy.specific or policy.wanted(versions)
    if named:
        config.version_policy.specific.versions.extend(named)
    elif policy.latest is None:
        config.version_policy.all.SetInParent()
    else:
        config.version_policy.latest.num_versions = policy.latest
