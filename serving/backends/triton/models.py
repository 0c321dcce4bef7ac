"""What servers have, as the gateway's index of graphs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from serving.backends.triton.endpoint import LOADING, READY, UNLOADED, Model
from serving.manifest import Manifest

_CPU = "KIND_CPU"


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the configuration of a loaded graph said."""

    manifest: Manifest
    """Its manifest, with every version that was published."""
    instances: int
    """Calls that one server computes at a time."""


def known(manifest: Manifest, config: Any) -> Known:
    """Instances by the instance groups: Triton puts one group in where the file has none."""
    instances = sum(group.count * max(1, len(group.gpus)) for group in config.instance_group)
    return Known(manifest=manifest, instances=max(1, instances))


def there(manifest: Manifest, model: Model) -> tuple[Manifest, dict[str, str]]:
    """The manifest with the versions that are loaded or can be, and why the others cannot."""
    found, refused = {}, {}
    for version, said in model.versions.items():
        place = f"{manifest.graph}/{version}"
        if version not in manifest.versions:
            refused[place] = f"config.pbtxt says nothing of version {version}; export it again"
        elif said.state in (READY, LOADING) or said.reason == UNLOADED:
            found[version] = manifest.versions[version]
        else:
            refused[place] = f"Triton does not load it: {said.reason or said.state}"
    return dataclasses.replace(manifest, versions=found), refused


def problem(name: str, model: Model) -> str:
    """Why nothing is known of a model, or it is not loaded."""
    reasons = {state.reason for state in model.versions.values() if state.reason}
    if UNLOADED in reasons:
        return f"{name} is unloaded in Triton; have it loaded there"
    return f"Triton does not load {name}: {'; '.join(sorted(reasons)) or model.reason or 'its log says why'}"
