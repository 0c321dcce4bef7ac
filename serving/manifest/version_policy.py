"""Which of the versions in a repository are served: Triton's `version_policy`, which both engines obey."""

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
"""What is published keeps the version before: whoever is half-way through a diffusion ends on it, a request
may name it, and a server that starts while a version is being published has one whose record is there."""

TRITON_DEFAULT = VersionPolicy(latest=1)
"""What Triton does where a configuration says nothing."""


def read(config: Any) -> VersionPolicy:
    """The policy in a `ModelConfig`."""
    policy = config.version_policy
    match policy.WhichOneof("policy_choice"):
        case "latest":
            return VersionPolicy(latest=policy.latest.num_versions or 1)
        case "specific":
            return VersionPolicy(specific=tuple(policy.specific.versions))
        case "all":
            return ALL
    return TRITON_DEFAULT


def write(policy: VersionPolicy, config: Any) -> None:
    """Puts the policy into a `ModelConfig`."""
    if policy.specific:
        config.version_policy.specific.versions.extend(policy.specific)
    elif policy.latest is None:
        config.version_policy.all.SetInParent()
    else:
        config.version_policy.latest.num_versions = policy.latest
