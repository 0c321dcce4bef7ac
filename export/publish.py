"""Publishing a model: all of its graphs as the next version, or none.

Every file is written beside the old ones, read back and checked (its digest, the manifest in its
configuration, a load under onnxruntime), then put in place by `export.transaction`. Old versions stay, and a
configuration keeps the records of them all.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from export.probes import open_session, probe
from export.transaction import RepositoryBusyError, transaction, write
from serving.manifest import Manifest, ManifestError, VersionRecord, parse, render, render_variants

CONFIG = "config.pbtxt"
VARIANTS = "configs"
MODEL = "model.onnx"
PLAN = "model.plan"
CARD = "card.md"
SAMPLES = "samples.png"

_CONTRACT = ("tasks", "inputs", "outputs", "value_range", "class_labels", "domains")


class PublishError(RuntimeError):
    """A model that cannot be published: names the model, the repository and the remedy."""


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A graph to publish."""

    manifest: Manifest
    """What it is, without versions."""
    record: VersionRecord
    """What is known of the new version."""
    model: bytes
    """The ONNX file."""
    plan: bytes | None = None
    """A TensorRT plan of it, where the record has one."""


def published(repository: Path) -> dict[str, Manifest]:
    """The manifests in a repository by graph; folders that are not ours are left out."""
    manifests = {}
    for config in sorted(repository.glob(f"[!.]*/{CONFIG}")):
        try:
            manifests[config.parent.name] = parse(config.read_text(encoding="utf-8"), config.parent.name)
        except (ManifestError, UnicodeDecodeError):
            continue
    return manifests


def plan(repository: Path, manifests: Sequence[Manifest], version: int | None = None) -> int:
    """The version that the graphs of a model would be published as: `version`, or the next one.

    Raises `PublishError` where the repository has no parent, a graph's name is taken, the contract of the
    model has changed, or the version exists. Writes nothing.
    """
    _check_place(repository)
    model = manifests[0].model
    existing = published(repository)
    for manifest in manifests:
        _check_name(repository, manifest, existing)
    _check_roles(repository, manifests[0], [other for other in existing.values() if other.model == model])
    for manifest in manifests:
        if manifest.graph in existing:
            _check_contract(repository, manifest, existing[manifest.graph])
    taken = {n for manifest in manifests for n in _versions(repository, manifest.graph, existing)}
    if version is None:
        return max(taken, default=0) + 1
    if version < 1:
        raise PublishError(f"version {version} is not possible: versions count from 1")
    if version in taken:
        raise PublishError(
            f"version {version} of {model!r} exists in {repository}, and versions never change: leave out "
            f"--version to publish version {max(taken) + 1}"
        )
    return version


def publish(repository: Path, candidates: Sequence[Candidate], version: int | None = None) -> int:
    """Publish the graphs of one model, all or none, and return their version.

    Raises `PublishError` as `plan` does, and where the repository is in use, cannot be written or is full;
    what was served before is then served still.
    """
    _check_place(repository)
    model = candidates[0].manifest.model
    with explained(repository, model), transaction(repository) as tree:
        version = plan(repository, [candidate.manifest for candidate in candidates], version)
        existing = published(repository)
        for candidate in candidates:
            folder = tree / candidate.manifest.graph
            old = existing.get(candidate.manifest.graph)
            record = _probed(candidate)
            versions = {**(old.versions if old else {}), version: record}
            acceleration = candidate.manifest.acceleration or (old.acceleration if old else None)
            manifest = dataclasses.replace(candidate.manifest, versions=versions, acceleration=acceleration)
            if old:  # what was decided of the versions holds for the new one
                policy, canary = old.version_policy, old.canary
                manifest = dataclasses.replace(manifest, version_policy=policy, canary=canary)
            write(folder / str(version) / MODEL, candidate.model)
            if candidate.plan is not None:
                write(folder / str(version) / PLAN, candidate.plan)
            write_configs(folder, manifest)
            _verify(folder, manifest, version)
    return version


def update_quality(
    repository: Path,
    model: str,
    version: int,
    quality: Mapping[str, float],
    card: str,
    samples_png: bytes,
) -> None:
    """Record the measured figures of a published version in all graphs of its model, with card and samples.

    `card.md` and `samples.png` go into the folder of the model's first graph. All or nothing, as `publish`.
    """
    _check_place(repository)
    with explained(repository, model), transaction(repository) as tree:
        manifests = [m for m in published(repository).values() if m.model == model]
        if not manifests:
            raise PublishError(f"there is no model {model!r} in {repository}: publish it with atelier export")
        for manifest in manifests:
            if version not in manifest.versions:
                raise PublishError(
                    f"{manifest.graph} in {repository} has no version {version}; it has "
                    f"{', '.join(map(str, sorted(manifest.versions)))}"
                )
            record = dataclasses.replace(manifest.versions[version], quality=dict(quality))
            updated = dataclasses.replace(manifest, versions={**manifest.versions, version: record})
            write_configs(tree / manifest.graph, updated)
            if manifest.role == manifest.roles[0]:
                write(tree / manifest.graph / CARD, card.encode())
                write(tree / manifest.graph / SAMPLES, samples_png)


def write_configs(folder: Path, manifest: Manifest) -> None:
    """Writes the configuration of a graph and its variants into a folder of a transaction."""
    write(folder / CONFIG, render(manifest).encode())
    for name, text in render_variants(manifest).items():
        write(folder / VARIANTS / f"{name}.pbtxt", text.encode())


@contextlib.contextmanager
def explained(repository: Path, model: str) -> Iterator[None]:
    """Turn what the system refuses into a `PublishError` that says what to do."""
    try:
        yield
    except RepositoryBusyError as error:
        raise PublishError(str(error)) from error
    except OSError as error:
        remedy = "see to it that the folder can be written, and publish again"
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            remedy = "free some space or name another repository with --to, and publish again"
        raise PublishError(
            f"cannot write {model!r} into {repository}: {error.strerror}; what was published before is as it "
            f"was: {remedy}"
        ) from error


def _check_place(repository: Path) -> None:
    if not repository.parent.is_dir():
        raise PublishError(
            f"{repository} cannot be made, as {repository.parent} does not exist: create that folder first, "
            "or name another repository with --to"
        )
    if repository.exists() and not repository.is_dir():
        raise PublishError(f"{repository} is a file: name a folder for the repository with --to")


def _check_name(repository: Path, manifest: Manifest, existing: Mapping[str, Manifest]) -> None:
    folder = repository / manifest.graph
    owner = existing.get(manifest.graph)
    if owner is not None and owner.model != manifest.model:
        raise PublishError(
            f"graph {manifest.graph!r} in {repository} belongs to model {owner.model!r}: choose another "
            "--name"
        )
    if owner is None and folder.exists():
        raise PublishError(
            f"{folder} exists and is not a graph that atelier published: move it away, or choose another "
            "--name"
        )


def _check_roles(repository: Path, new: Manifest, existing: Sequence[Manifest]) -> None:
    for old in existing:
        if set(old.roles) != set(new.roles):
            raise PublishError(
                f"model {new.model!r} in {repository} has the graphs {', '.join(old.roles)} and this run has "
                f"{', '.join(new.roles)}: publish it as another model with --name"
            )


def _check_contract(repository: Path, new: Manifest, old: Manifest) -> None:
    """A client of the old version must be able to ask the new one: same tensors, labels and noise levels."""
    pairs = [(name, getattr(old, name), getattr(new, name)) for name in _CONTRACT]
    if old.sampling and new.sampling:
        pairs += [
            (name, getattr(old.sampling, name), getattr(new.sampling, name))
            for name in ("parameterization", "schedule")
        ]
    for name, before, after in pairs:
        if before != after:
            raise PublishError(
                f"{new.graph}: {name} of the version in {repository} is {_short(before)} and of this run "
                f"{_short(after)}, so clients of the one could not use the other: publish it as another "
                "model with --name"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:197]}..."


def _versions(repository: Path, graph: str, existing: Mapping[str, Manifest]) -> set[int]:
    recorded = set(existing[graph].versions) if graph in existing else set()
    folders = {int(p.name) for p in (repository / graph).glob("*") if p.is_dir() and p.name.isdecimal()}
    return recorded | folders


def _verify(folder: Path, manifest: Manifest, version: int) -> None:
    """Read back what was written: the digest and the configuration."""
    model = folder / str(version) / MODEL
    content = model.read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.versions[version].sha256:
        raise PublishError(f"{manifest.graph}: the file read back has another digest than the one written")
    if parse((folder / CONFIG).read_text(encoding="utf-8"), manifest.graph) != manifest:
        raise PublishError(f"{manifest.graph}: the configuration read back is not the one written")
    plan = manifest.versions[version].plan
    if plan and hashlib.sha256((folder / str(version) / PLAN).read_bytes()).hexdigest() != plan.sha256:
        raise PublishError(f"{manifest.graph}: the plan read back has another digest than the one written")


def _probed(candidate: Candidate) -> VersionRecord:
    """The record with the probe of a file that loads under onnxruntime and has the tensors that it should."""
    manifest = candidate.manifest
    session = open_session(candidate.model)
    for what, specs, tensors in (
        ("inputs", manifest.inputs, session.get_inputs()),
        ("outputs", manifest.outputs, session.get_outputs()),
    ):
        if [spec.name for spec in specs] != [tensor.name for tensor in tensors]:
            raise PublishError(
                f"{manifest.graph}: the model's {what} are {[tensor.name for tensor in tensors]}, not as its "
                "manifest says"
            )
    return dataclasses.replace(candidate.record, probe=probe(manifest, session))
