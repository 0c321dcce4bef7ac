"""What servers have, as the gateway's index of graphs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from serving.backends.triton.endpoint import LOADING, READY, UNLOADED, UNLOADING, Model, VersionState
from serving.manifest import Manifest, from_config


@dataclass(frozen=True, kw_only=True)
class Known:
    """What the configuration of a loaded graph said."""

    manifest: Manifest
    """Its manifest, with every version that was published."""
    instances: int
    """Calls that one server computes at a time."""


def read(config: Any) -> Known:
    """What a `ModelConfig` says; Triton puts an instance group in where the file has none.

    Raises `ManifestError` for a model that is not ours.
    """
    instances = sum(group.count * max(1, len(group.gpus)) for group in config.instance_group)
    return Known(manifest=from_config(config), instances=max(1, instances))


def merged(models: Sequence[Model]) -> Model:
    """What servers say together: of each version the best that one of them has."""
    versions: dict[int, VersionState] = {}
    for model in models:
        for version, said in model.versions.items():
            if version not in versions or (said.state == READY and versions[version].state != READY):
                versions[version] = said
    return Model(versions=versions)


def there(manifest: Manifest, model: Model) -> tuple[Manifest, dict[str, str]]:
    """The manifest with the versions that are loaded or can be, and why the others cannot.

    A server that has just started again under explicit control names no versions: it can load those that
    it had.
    """
    if not model.versions:
        return manifest, {}
    found, refused = {}, {}
    for version, said in model.versions.items():
        place = f"{manifest.graph}/{version}"
        if said.state in (READY, LOADING, UNLOADING) or said.reason == UNLOADED:
            if version in manifest.versions:
                found[version] = manifest.versions[version]
            else:
                refused[place] = f"config.pbtxt says nothing of version {version}; export it again"
        else:
            refused[place] = f"Triton does not load it: {said.reason or said.state}"
    return dataclasses.replace(manifest, versions=found), refused


def problem(name: str, model: Model) -> str:
    """Why nothing is known of a model, or it is not loaded."""
    if model.unloaded:
        return f"{name} is unloaded in Triton; have it loaded there"
    reasons = sorted({said.reason for said in model.versions.values() if said.reason})
    return f"Triton does not load {name}: {'; '.join(reasons) or 'its log says why'}"
