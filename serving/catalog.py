"""What there is to serve: the graphs of a repository, grouped into public models."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
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


@dataclass(frozen=True, kw_only=True)
class PublicModel:
    """A model as a client sees it: one or several graphs."""

    name: str
    """Name that requests give."""
    graphs: Mapping[str, Manifest]
    """Graphs by role, in the order of the manifest's roles."""
    versions: tuple[int, ...]
    """Versions that every role has, rising."""

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

    def version(self, asked: int, ready: Iterable[int]) -> int:
        """The version of a request: the one asked for; for 0 the newest that is ready, else the newest."""
        if asked == 0:
            return max(ready, default=self.versions[-1])
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


def scan(repository: Path) -> Index:
    """Reads every `config.pbtxt` of a repository; what is broken is refused and the rest goes on."""
    manifests = []
    refused = {}
    for folder in sorted(path for path in repository.iterdir() if path.is_dir()):
        if folder.name.startswith("."):
            continue
        try:
            manifest = parse((folder / "config.pbtxt").read_text("utf-8"), folder.name)
        except FileNotFoundError:
            refused[folder.name] = f"{folder.name} has no config.pbtxt; export it again"
        except (ManifestError, OSError, UnicodeDecodeError) as error:
            refused[folder.name] = str(error)
        else:
            found = {v: r for v, r in manifest.versions.items() if (folder / str(v) / MODEL_FILE).is_file()}
            for version in manifest.versions.keys() - found.keys():
                place = f"{folder.name}/{version}"
                refused[place] = f"{place}/{MODEL_FILE} is not there; export it again"
            manifests.append(dataclasses.replace(manifest, versions=found))
    return Index(manifests=manifests, refused=refused)


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
        models[name] = PublicModel(name=name, graphs=graphs, versions=tuple(sorted(versions)))
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
