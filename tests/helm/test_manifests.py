"""What helm makes of the chart is valid: linted, and strictly checked for Kubernetes 1.29 to 1.35."""

import json
import subprocess
from pathlib import Path

import kubernetes_validate
import pytest
import tools
import yaml
from charts import CHART, KUBERNETES, VALUE_FILES, containers, of_file, pods, render, render_text, run_helm

every_value_file = pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)
CUSTOM = ("cert-manager.io", "gateway.networking.k8s.io", "keda.sh", "monitoring.coreos.com")

_valid: set[tuple[str, str]] = set()


def is_custom(manifest: dict) -> bool:
    return manifest["apiVersion"].split("/")[0] in CUSTOM


@pytest.mark.parametrize("version", tools.HELM_VERSIONS)
def test_lint_finds_nothing(version: str):
    for values in VALUE_FILES:
        ended = run_helm("lint", "--strict", CHART, *of_file(values), version=version)
        assert ended.returncode == 0, f"{values.name}: {ended.stdout}{ended.stderr}"


@pytest.mark.parametrize("kubernetes", KUBERNETES)
@every_value_file
def test_every_manifest_is_valid(values: Path, kubernetes: str):
    for manifest in render(of_file(values), kubernetes):
        if is_custom(manifest):
            continue
        what = (json.dumps(manifest, sort_keys=True), kubernetes)
        if what not in _valid:
            kubernetes_validate.validate(manifest, kubernetes, strict=True)
            _valid.add(what)


def test_a_field_that_kubernetes_does_not_know_would_be_found():
    (deployment,) = [m for m in render() if m["kind"] == "Deployment"]
    deployment["spec"]["template"]["spec"]["containers"][0]["comand"] = ["atelier"]
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, "1.33", strict=True)


def test_custom_resources_are_as_their_definitions_want_them():
    manifests = [m for values in VALUE_FILES for m in render(of_file(values)) if is_custom(m)]
    assert {m["kind"] for m in manifests} >= {
        "Certificate",
        "GRPCRoute",
        "HTTPRoute",
        "PodMonitor",
        "ScaledObject",
        "ServiceMonitor",
    }
    wrong = json.loads(json.dumps(manifests[0]))
    wrong["spec"]["colour"] = "blue"
    *answers, last = custom_problems([*manifests, wrong])
    assert last == [".spec.colour is not known"]
    for manifest, problems in zip(manifests, answers, strict=True):
        assert problems == [], f"{manifest['kind']} {manifest['metadata']['name']}"


def custom_problems(manifests: list[dict]) -> list[list[str]]:
    """What the definitions of custom resources have against each."""
    ended = subprocess.run(
        ["node", str(Path(__file__).parent / "crds" / "validate.mjs")],
        cwd=tools.crd_schemas(),
        input=json.dumps(manifests),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@every_value_file
def test_helm_3_renders_the_same_as_helm_4(values: Path):
    assert render(of_file(values), helm="3.17.2") == render(of_file(values), helm="4.1.4")


def test_no_key_is_there_twice():
    """YAML readers take the last of two and say nothing."""

    class Strict(yaml.CSafeLoader):
        def construct_mapping(self, node, deep=False):
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            assert len(keys) == len(set(keys)), f"{sorted(keys)} in {node.start_mark}"
            return super().construct_mapping(node, deep)

    for values in VALUE_FILES:
        list(yaml.load_all(render_text(of_file(values)), Loader=Strict))


@every_value_file
def test_every_pod_meets_the_restricted_standard_of_pod_security(values: Path):
    for pod in pods(render(of_file(values))):
        spec = pod["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"].get("runAsUser", 1) != 0
        assert spec["securityContext"]["seccompProfile"]["type"] in ("RuntimeDefault", "Localhost")
        assert not any(spec.get(key) for key in ("hostNetwork", "hostPID", "hostIPC"))
        assert not any("hostPath" in volume for volume in spec.get("volumes", []))
        for container in containers(pod):
            security = container["securityContext"]
            assert security["allowPrivilegeEscalation"] is False
            assert security["readOnlyRootFilesystem"] is True
            assert security["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["requests"], container["name"]
            assert "memory" in container["resources"]["limits"], container["name"]


# Why what checkov would have is not so.
ACCEPTED = {
    "CKV_K8S_8": "helm's test and the training are not servers; the gateway and Triton have probes",
    "CKV_K8S_9": "the same",
    "CKV_K8S_11": "a limit on CPU throttles a gateway in the middle of a batch; requests give it its share",
    "CKV_K8S_15": "tags of releases do not move, and an outage of the registry should stop no pod",
    "CKV_K8S_31": "a profile of the node's own is stricter than the runtime's, and has to be asked for",
    "CKV_K8S_35": "helm's test takes its API key as a variable, in a pod that lives for seconds",
    "CKV_K8S_40": "the user of Triton's image is 1000",
    "CKV_K8S_43": "digests are values: nobody but the user knows the digest of the image they built",
    "CKV2_K8S_6": "the policies are for those who listen; helm's test does not",
}


def test_checkov_finds_nothing_beyond_what_is_accepted(tmp_path: Path):
    for values in VALUE_FILES:
        (tmp_path / f"{values.stem}.yaml").write_text(render_text(of_file(values)), "utf-8")
    ended = subprocess.run(
        [
            *(str(tools.checkov()), "--framework", "kubernetes", "--skip-download", "--quiet", "--compact"),
            *("--output", "json", "--directory", str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    report = json.loads(ended.stdout)
    assert report["summary"]["passed"] > 1000
    assert report["summary"]["parsing_errors"] == 0
    failed = {(check["check_id"], check["resource"]): check for check in report["results"]["failed_checks"]}
    found = {check for check, _ in failed}
    assert found <= ACCEPTED.keys(), [
        f"{c}: {failed[c, r]['check_name']}: {r}" for c, r in failed if c not in ACCEPTED
    ]
    assert found == ACCEPTED.keys(), f"accepted in vain: {sorted(ACCEPTED.keys() - found)}"
