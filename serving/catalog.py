"""What there is to serve: the graphs of a repository, grouped into public models."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Hashable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from serving.errors import invalid, not_found, one_of
from serving.manifest import Manifest, ManifestError, TensorSpec, parse

MODEL_FILE = "model.onnx"

# Inputs and outputs that a role must have, by the conventions of the manifest; every other role translates.
_ROLE_TENSORS: dict[str, tuple[frozenset[str], frozenset[str]]] = {
    "generator": (frozenset({"latent"}), frozenset({"sample"})),
    "decoder": (frozenset({"latent"}), frozenset({"sample"})),
    "encoder": (frozenset({"image"}), frozenset({"mean"})),
    "denoiser": (frozenset({"x", "noise_level"}), frozenset({"prediction"})),
}
_TRANSLATOR_TENSORS = (frozenset({"image"}), frozenset({"translated"}))
_KNOWN_INPUTS = frozenset({"latent", "noise", "class_id", "image", "x", "noise_level"})


@dataclass(frozen=True, kw_only=True)
class Index:
    """The graphs of a repository."""

    manifests: Sequence[Manifest] = ()
    """Graphs that can be served, with the versions that are there."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """Why the others cannot, by the name of their folder (`graph` or `graph/version`)."""
    stamps: Mapping[tuple[str, int], Hashable] = field(default_factory=dict)
    """What the file of a version looked like, by graph and version: another stamp, another file."""


@dataclass(frozen=True, kw_only=True)
class PublicModel:
    """A model as a client sees it: one or several graphs."""

    name: str
    """Name that requests give."""
    graphs: Mapping[str, Manifest]
    """Graphs by role, in the order of the manifest's roles."""
    versions: tuple[int, ...]
    """Versions that every role has, rising."""
    others: tuple[int, ...] = ()
    """Versions in the repository that its policy does not serve."""

    @cached_property
    def first(self) -> Manifest:
        """Manifest of the first role, for what all roles share."""
        return next(iter(self.graphs.values()))

    @cached_property
    def denoiser(self) -> Manifest | None:
        """The graph that is sampled step by step, for diffusion."""
        return self.graphs.get("denoiser")

    @cached_property
    def drawn(self) -> Manifest | None:
        """The graph that turns a latent into a picture."""
        return self.graphs.get("generator") or self.graphs.get("decoder")

    @cached_property
    def digests(self) -> Mapping[int, str]:
        """Name and SHA-256 of every graph in a line, by version."""
        return {
            version: " ".join(sorted(f"{m.graph}={m.versions[version].sha256}" for m in self.graphs.values()))
            for version in self.versions
        }

    @cached_property
    def directions(self) -> tuple[str, ...]:
        """Roles that translate."""
        return tuple(role for role in self.graphs if role not in _ROLE_TENSORS)

    @cached_property
    def latent(self) -> TensorSpec | None:
        """The latent that clients may give or be given."""
        return self.drawn.input("latent") if self.drawn and not self.denoiser else None

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """What it can be asked to do: any model that draws from a latent also decodes those it is given."""
        return (*self.first.tasks, *(("decode",) if self.latent and "decode" not in self.first.tasks else ()))

    @cached_property
    def picture(self) -> TensorSpec:
        """The image that comes out."""
        if self.drawn:
            spec = self.drawn.output("sample")
        elif self.denoiser:
            spec = self.denoiser.input("x")
        else:
            spec = self.first.output("translated") or self.first.input("image")
        assert spec is not None, "checked when the catalog was made"
        return spec

    @cached_property
    def conditional(self) -> bool:
        """Whether drawing a picture takes a class."""
        manifest = self.denoiser or self.drawn
        return manifest is not None and manifest.input("class_id") is not None

    @property
    def wanted(self) -> tuple[int, ...]:
        """The versions that the policies of all its graphs serve."""
        served = (m.version_policy.wanted(self.versions) for m in self.graphs.values())
        return tuple(sorted(set.intersection(*map(set, served))))

    def shares(self, ready: Sequence[int]) -> Mapping[int, float]:
        """How requests that name no version are shared out: by the canary, else all to the newest."""
        canary = {v: share for v, share in sorted(self.first.canary.items()) if v in ready and share}
        if not canary:
            return {max(ready): 1.0} if ready else {}
        return {version: share / sum(canary.values()) for version, share in canary.items()}

    def version(self, asked: int, ready: Sequence[int], key: str = "") -> int:
        """The version of a request: the one asked for; for 0 the newest that is ready, else the newest.

        Where a canary is declared, 0 is one of its versions that are ready, in its shares, the same for the
        same `key`.
        """
        if asked == 0:
            shares = {v: share for v, share in self.first.canary.items() if v in ready and share}
            return (
                _share_of(f"{self.name} {key}", shares) if shares else max(ready, default=self.versions[-1])
            )
        if asked in self.others:
            policies = one_of(sorted({str(m.version_policy) for m in self.graphs.values()}))
            raise not_found(
                "version",
                f"version {asked} of {self.name} is not served: its version policy is {policies}; "
                f"it has {one_of(map(str, self.versions))}",
            )
        if asked not in self.versions:
            raise not_found(
                "version",
                f"{self.name} has no version {asked}; it has {one_of(map(str, self.versions))}, "
                f"and 0 is the newest",
            )
        return asked

    def require(self, task: str) -> None:
        """Raises INVALID_ARGUMENT unless the model has the task."""
        if task not in self.tasks:
            raise invalid("model", f"{self.name} cannot {task}; it can {one_of(self.tasks)}")


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """Every public model of a repository."""

    models: Mapping[str, PublicModel]
    """Models by name, sorted."""
    refused: Mapping[str, str]
    """Why other models, graphs or versions are not served, by name."""

    @cached_property
    def manifests(self) -> Mapping[str, Manifest]:
        """Manifests of the graphs of every model, by graph."""
        return {m.graph: m for model in self.models.values() for m in model.graphs.values()}

    def model(self, name: str) -> PublicModel:
        """The model of that name; NOT_FOUND otherwise, with why if it was refused."""
        if name in self.models:
            return self.models[name]
        if not name:
            raise invalid("model", f"model is not given; it is one of {one_of(self.models)}")
        if name in self.refused:
            raise not_found("model", f"model {name!r} cannot be served: {self.refused[name]}")
        there = f"there are {one_of(self.models, name)}" if self.models else "the repository has no models"
        raise not_found("model", f"no model {name!r}; {there}")


Parsed = MutableMapping[str, tuple[bytes, Manifest]]
"""Manifests by graph with the digests of the configurations that they were parsed from."""


def scan(repository: Path, parsed: Parsed | None = None) -> Index:
    """Reads every `config.pbtxt` of a repository; what is broken is refused and the rest goes on.

    With `parsed`, which it keeps, a configuration is parsed again only when its content has changed.
    """
    manifests = []
    refused = {}
    stamps: dict[tuple[str, int], Hashable] = {}
    parsed = {} if parsed is None else parsed
    folders = sorted(path for path in repository.iterdir() if path.is_dir())
    for folder in folders:
        if folder.name.startswith("."):
            continue
        try:
            manifest = _read(folder, parsed)
        except FileNotFoundError:
            refused[folder.name] = f"{folder.name} has no config.pbtxt; export it again"
        except (ManifestError, OSError, UnicodeDecodeError) as error:
            refused[folder.name] = str(error)
        else:
            found = {}
            for version, record in manifest.versions.items():
                place = f"{folder.name}/{version}"
                stamp = _stamp(folder / str(version) / MODEL_FILE)
                if stamp is None:
                    refused[place] = f"{place}/{MODEL_FILE} is not there; export it again"
                else:
                    found[version], stamps[folder.name, version] = record, stamp
            manifests.append(dataclasses.replace(manifest, versions=found))
    for graph in parsed.keys() - {folder.name for folder in folders}:
        del parsed[graph]
    return Index(manifests=manifests, refused=refused, stamps=stamps)


def _read(folder: Path, parsed: Parsed) -> Manifest:
    text = (folder / "config.pbtxt").read_bytes()
    digest = hashlib.sha256(text).digest()
    before = parsed.get(folder.name)
    if before is not None and before[0] == digest:
        return before[1]
    manifest = parse(text.decode("utf-8"), folder.name)
    parsed[folder.name] = digest, manifest
    return manifest


def _stamp(file: Path) -> Hashable:
    """Changes with the file; a copy that keeps size and time of its original still changes the inode's."""
    try:
        found = file.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _share_of(key: str, shares: Mapping[int, float]) -> int:
    """One of the versions, by the digest of the key; their shares are 1 together."""
    digest = hashlib.sha256(key.encode()).digest()
    at = int.from_bytes(digest[:8], "big") / 2**64
    for version, share in shares.items():
        at -= share
        if at < 0:
            return version
    return max(shares)


def build(index: Index) -> Catalog:
    """Groups graphs into public models; a model with a part missing or amiss is refused with the reason."""
    refused = dict(index.refused)
    groups: dict[str, dict[str, Manifest]] = {}
    for manifest in index.manifests:
        roles = groups.setdefault(manifest.model, {})
        if manifest.role in roles:
            refused[manifest.model] = (
                f"{roles[manifest.role].graph} and {manifest.graph} both are its {manifest.role}: remove one"
            )
        roles[manifest.role] = manifest
    models = {}
    for name, roles in sorted(groups.items()):
        problem = refused.get(name) or _problem(roles)
        if problem:
            refused[name] = problem
            continue
        first = next(iter(roles.values()))
        graphs = {role: roles[role] for role in first.roles}
        versions = set.intersection(*(set(manifest.versions) for manifest in graphs.values()))
        model = PublicModel(name=name, graphs=graphs, versions=tuple(sorted(versions)))
        if not model.wanted:
            policies = one_of(sorted({str(manifest.version_policy) for manifest in graphs.values()}))
            there = one_of(map(str, model.versions))
            refused[name] = f"its version policy {policies} serves none of its versions {there}"
            continue
        models[name] = model
    return Catalog(models=models, refused=refused)


def _problem(roles: Mapping[str, Manifest]) -> str | None:
    """What keeps these graphs from being a model, with the remedy; None for nothing."""
    first = next(iter(roles.values()))
    missing = [role for role in first.roles if role not in roles]
    if missing:
        return f"no graph has its role {', '.join(missing)}; export it again"
    if len({(manifest.roles, manifest.tasks) for manifest in roles.values()}) > 1:
        return "its graphs differ in roles or tasks: they are of different exports; export it again"
    if not set.intersection(*(set(manifest.versions) for manifest in roles.values())):
        return "no version has all of its graphs; export it again"
    translators = roles.keys() - _ROLE_TENSORS.keys()
    for task, found in (
        ("generate", roles.keys() & {"generator", "decoder", "denoiser"}),
        ("encode", roles.keys() & {"encoder"}),
        ("decode", roles.keys() & {"generator", "decoder"} if "denoiser" not in roles else set()),
        ("translate", translators),
    ):
        if task in first.tasks and not found:
            return f"it is said to {task}, but none of its graphs ({one_of(roles)}) does; export it again"
    for role, manifest in roles.items():
        inputs, outputs = _ROLE_TENSORS.get(role, _TRANSLATOR_TENSORS)
        lacking = sorted(inputs - {spec.name for spec in manifest.inputs})
        lacking += sorted(outputs - {spec.name for spec in manifest.outputs})
        if lacking:
            return f"its {role} {manifest.graph} has no tensor {', '.join(lacking)}; export it again"
        strange = {spec.name for spec in manifest.inputs} - _KNOWN_INPUTS
        if strange:
            return (
                f"its {role} {manifest.graph} takes {one_of(sorted(strange))}, which this gateway cannot give"
            )
    return None
