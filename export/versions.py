"""What is decided of a published model's versions: which are served, how requests are shared out, which go.

Every change is one transaction over all graphs of the model, as a publication is: a gateway or a Triton that
follows the repository sees the old state or the new one.
"""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from export.probes import open_session, probe
from export.publish import MODEL, PublishError, explained, published, write_configs
from export.transaction import transaction
from serving.manifest import Manifest
from serving.manifest.version_policy import VersionPolicy


def graphs_of(repository: Path, model: str) -> list[Manifest]:
    """The graphs of a published model; `PublishError` where there are none."""
    manifests = published(repository) if repository.is_dir() else {}
    found = [manifest for manifest in manifests.values() if manifest.model == model]
    if not found:
        names = ", ".join(sorted({manifest.model for manifest in manifests.values()})) or "no models"
        raise PublishError(f"there is no model {model!r} in {repository}; there are {names}")
    return found


def versions_of(manifests: Sequence[Manifest]) -> list[int]:
    """The versions that every graph has, rising."""
    return sorted(set.intersection(*(set(manifest.versions) for manifest in manifests)))


def set_policy(repository: Path, model: str, policy: VersionPolicy) -> None:
    """Has these versions served."""
    manifests = graphs_of(repository, model)
    if not policy.wanted(versions_of(manifests)):
        raise PublishError(_no_version(model, policy.specific, manifests))
    canary = manifests[0].canary
    outside = sorted(canary.keys() - set(policy.wanted(versions_of(manifests))))
    if outside:
        raise PublishError(
            f"policy {policy} of {model!r} leaves out version {outside[0]}, which has a share of the "
            "requests: change the shares first"
        )
    _change(repository, model, lambda manifest: dataclasses.replace(manifest, version_policy=policy))


def set_shares(repository: Path, model: str, shares: Mapping[int, float]) -> None:
    """Shares out the requests that name no version; without shares all get the newest."""
    manifests = graphs_of(repository, model)
    served = manifests[0].version_policy.wanted(versions_of(manifests))
    strange = sorted(set(shares) - set(served))
    if strange:
        raise PublishError(
            f"version {strange[0]} of {model!r} is not served: its policy {manifests[0].version_policy} "
            f"serves {', '.join(map(str, served))}; change the policy first"
        )
    _change(repository, model, lambda manifest: dataclasses.replace(manifest, canary=dict(shares)))


def prune(repository: Path, model: str, keep: int) -> list[int]:
    """Removes all but the newest `keep` versions, and returns those that went.

    The records go first, so that a folder which is still there after a kill belongs to nobody.
    """
    manifests = graphs_of(repository, model)
    versions = versions_of(manifests)
    kept = set(versions[-keep:])
    if keep < 1:
        raise PublishError(
            f"keeping {keep} versions of {model!r} would leave nothing to serve: keep 1 or more"
        )
    needed = sorted((set(manifests[0].canary) | set(manifests[0].version_policy.specific)) - kept)
    if needed:
        raise PublishError(
            f"version {needed[0]} of {model!r} is in its policy or has a share of the requests: change that "
            "first, or keep more"
        )

    def without(manifest: Manifest) -> Manifest:
        records = {version: record for version, record in manifest.versions.items() if version in kept}
        return dataclasses.replace(manifest, versions=records)

    _change(repository, model, without)
    gone = [version for version in versions if version not in kept]
    with explained(repository, model):
        for manifest in manifests:
            for version in set(manifest.versions) - kept:
                shutil.rmtree(repository / manifest.graph / str(version), ignore_errors=True)
    return gone


def add_probes(repository: Path, model: str) -> list[int]:
    """Records the probes of versions that were published without, and returns which.

    Of a file that is still the one published, computed here: a file that is not is refused.
    """
    added: set[int] = set()

    def with_probes(manifest: Manifest) -> Manifest:
        records = dict(manifest.versions)
        for version, record in records.items():
            if record.probe is None:
                path = repository / manifest.graph / str(version) / MODEL
                content = path.read_bytes()
                if hashlib.sha256(content).hexdigest() != record.sha256:
                    raise PublishError(f"{path} is not the file that was published: export it again")
                records[version] = dataclasses.replace(record, probe=probe(manifest, open_session(content)))
                added.add(version)
        return dataclasses.replace(manifest, versions=records)

    _change(repository, model, with_probes)
    return sorted(added)


def _change(repository: Path, model: str, changed: Callable[[Manifest], Manifest]) -> None:
    """Replaces the configurations of a model's graphs, all or none."""
    with explained(repository, model), transaction(repository) as tree:
        for manifest in graphs_of(repository, model):
            write_configs(tree / manifest.graph, changed(manifest))


def _no_version(model: str, versions: Sequence[int], manifests: Sequence[Manifest]) -> str:
    there = ", ".join(map(str, versions_of(manifests)))
    return f"{model!r} has none of the versions {', '.join(map(str, versions))}; it has {there}"
