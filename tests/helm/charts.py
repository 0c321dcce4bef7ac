"""Rendering of the chart by the real helm, and looking into what comes of it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import tools
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "atelier"
VALUE_FILES = sorted((CHART / "ci").glob("*.yaml"))
KUBERNETES = tuple(f"1.{minor}" for minor in range(29, 36))
NEWEST_HELM = tools.HELM_VERSIONS[-1]

# The C loader takes a fifth of the time.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)

Manifest = dict[str, Any]


def run_helm(*arguments: object, version: str = NEWEST_HELM) -> subprocess.CompletedProcess[str]:
    """What helm says."""
    command = [str(tools.helm(version)), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@cache
def render_text(values: tuple[str, ...] = (), kubernetes: str = "1.33", helm: str = NEWEST_HELM) -> str:
    """The chart as `helm template` renders it, with the arguments that give its values."""
    namespace = ("--namespace", "pictures", "--kube-version", f"{kubernetes}.0")
    ended = run_helm("template", "test", CHART, *values, *namespace, version=helm)
    assert ended.returncode == 0, f"{values}: {ended.stderr}"
    return ended.stdout


def of_file(path: Path) -> tuple[str, ...]:
    """The arguments that take a file of `ci/`."""
    return ("--values", str(path))


def of_sets(*sets: str) -> tuple[str, ...]:
    """The arguments that set single values, as YAML or JSON."""
    return tuple(word for one in sets for word in ("--set-json" if _json(one) else "--set", one))


def render(values: tuple[str, ...] = (), kubernetes: str = "1.33", helm: str = NEWEST_HELM) -> list[Manifest]:
    """The manifests of the chart."""
    return [
        one for one in yaml.load_all(render_text(values, kubernetes, helm), Loader=_LOADER) if one is not None
    ]


def one(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The only manifest of a kind, or that of a name."""
    (found,) = [m for m in manifests if m["kind"] == kind and name in (None, m["metadata"]["name"])]
    return found


def kinds(manifests: list[Manifest], kind: str) -> list[Manifest]:
    """All manifests of a kind."""
    return [m for m in manifests if m["kind"] == kind]


def pod_template(manifest: Manifest) -> Manifest | None:
    """The pod that a manifest makes, with its metadata."""
    match manifest["kind"]:
        case "Deployment" | "StatefulSet" | "Job":
            return manifest["spec"]["template"]
        case "CronJob":
            return manifest["spec"]["jobTemplate"]["spec"]["template"]
        case "Pod":
            return manifest
        case _:
            return None


def pods(manifests: list[Manifest]) -> Iterator[Manifest]:
    """All pods that are made."""
    for manifest in manifests:
        template = pod_template(manifest)
        if template is not None:
            yield template


def containers(pod: Manifest) -> list[Manifest]:
    """All containers of a pod, those that run first included."""
    return [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]


def environment(container: Manifest) -> dict[str, str]:
    """Variables of a container that are written out."""
    return {one["name"]: one["value"] for one in container.get("env", []) if "value" in one}


def _json(assignment: str) -> bool:
    try:
        json.loads(assignment.partition("=")[2])
    except ValueError:
        return False
    return True
