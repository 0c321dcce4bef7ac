"""What manifests say of each other holds: selectors, ports, volumes, secrets, keys, checksums, seconds."""

from pathlib import Path

import pytest
from charts import (
    VALUE_FILES,
    Manifest,
    containers,
    environment,
    kinds,
    of_file,
    of_sets,
    one,
    pod_template,
    pods,
    render,
)

every_value_file = pytest.mark.parametrize("values", VALUE_FILES, ids=lambda path: path.stem)

# What the user brings: named in the files of values, and made by nobody here.
BROUGHT = {
    "Secret": {
        *("model-credentials", "registry", "atelier-api-keys", "atelier-tls", "atelier-clients"),
        *("triton-client", "atelier-public"),
    },
    "PersistentVolumeClaim": {"models", "runs", "photos", "engines"},
    "ServiceAccount": {"default"},
}


def selected(manifests: list[Manifest], labels: dict[str, str]) -> list[Manifest]:
    """The pods that labels find."""
    return [pod for pod in pods(manifests) if labels.items() <= pod["metadata"]["labels"].items()]


def port_names(pod: Manifest) -> dict[str, int]:
    return {p["name"]: p["containerPort"] for c in containers(pod) for p in c.get("ports", [])}


def names(manifests: list[Manifest], kind: str) -> set[str]:
    made = {m["metadata"]["name"] for m in kinds(manifests, kind)}
    if kind == "Secret":
        made |= {m["spec"]["secretName"] for m in kinds(manifests, "Certificate")}
    return made | BROUGHT.get(kind, set())


@every_value_file
def test_services_find_pods_of_one_kind_and_ports_that_these_have(values: Path):
    manifests = render(of_file(values))
    for service in kinds(manifests, "Service"):
        found = selected(manifests, service["spec"]["selector"])
        assert len(found) == 1, service["metadata"]["name"]
        for port in service["spec"]["ports"]:
            target = port["targetPort"]
            assert target in port_names(found[0]) or isinstance(target, int), service["metadata"]["name"]


@every_value_file
def test_every_other_selector_finds_the_pods_that_it_is_for(values: Path):
    manifests = render(of_file(values))
    for manifest in manifests:
        name = manifest["metadata"]["name"]
        match manifest["kind"]:
            case "Deployment" | "StatefulSet":
                assert selected(manifests, manifest["spec"]["selector"]["matchLabels"]) == [
                    pod_template(manifest)
                ], name
            case "PodDisruptionBudget":
                assert len(selected(manifests, manifest["spec"]["selector"]["matchLabels"])) == 1, name
            case "NetworkPolicy":
                (pod,) = selected(manifests, manifest["spec"]["podSelector"]["matchLabels"])
                for rule in manifest["spec"]["ingress"]:
                    for port in rule.get("ports", []):
                        assert port["port"] in port_names(pod), name
                for rule in manifest["spec"]["egress"]:
                    for peer in rule.get("to", []):
                        (other,) = selected(manifests, peer["podSelector"]["matchLabels"])
                        for port in rule.get("ports", []):
                            assert port["port"] in port_names(other), name
    for pod in pods(manifests):
        for constraint in pod["spec"].get("topologySpreadConstraints", []):
            assert selected(manifests, constraint["labelSelector"]["matchLabels"]) == [pod]


@every_value_file
def test_monitors_find_every_metrics_port_once(values: Path):
    manifests = render(of_file(values))
    for kind, things, endpoints in (
        ("ServiceMonitor", kinds(manifests, "Service"), "endpoints"),
        ("PodMonitor", list(pods(manifests)), "podMetricsEndpoints"),
    ):
        for monitor in kinds(manifests, kind):
            (expression,) = monitor["spec"]["selector"]["matchExpressions"]
            assert expression["operator"] == "In"
            found = [
                thing
                for thing in things
                if monitor["spec"]["selector"]["matchLabels"].items() <= thing["metadata"]["labels"].items()
                and thing["metadata"]["labels"][expression["key"]] in expression["values"]
            ]
            offered = [
                port["name"]
                for thing in found
                for port in (
                    thing["spec"]["ports"]
                    if kind == "ServiceMonitor"
                    else [p for c in containers(thing) for p in c.get("ports", [])]
                )
                if "metrics" in port["name"]
            ]
            assert found
            assert sorted(set(offered)) == sorted(e["port"] for e in monitor["spec"][endpoints])
            assert len(found) == 1 + len(kinds(manifests, "StatefulSet"))


@every_value_file
def test_ways_in_lead_to_ports_of_the_service(values: Path):
    manifests = render(of_file(values))
    services = {s["metadata"]["name"]: s["spec"]["ports"] for s in kinds(manifests, "Service")}
    for ingress in kinds(manifests, "Ingress"):
        for rule in ingress["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                backend = path["backend"]["service"]
                assert backend["port"]["name"] in {p["name"] for p in services[backend["name"]]}
        for tls in ingress["spec"].get("tls", []):
            assert tls["hosts"] == [rule["host"] for rule in ingress["spec"]["rules"]]
            assert tls["secretName"] in names(manifests, "Secret")
    for kind, port_name in (("HTTPRoute", "http"), ("GRPCRoute", "grpc")):
        for route in kinds(manifests, kind):
            for rule in route["spec"]["rules"]:
                for backend in rule["backendRefs"]:
                    ports = {p["name"]: p["port"] for p in services[backend["name"]]}
                    assert backend["port"] == ports[port_name]


@every_value_file
def test_pods_refer_to_what_is_there(values: Path):
    manifests = render(of_file(values))
    for pod in pods(manifests):
        spec = pod["spec"]
        assert spec["serviceAccountName"] in names(manifests, "ServiceAccount")
        volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
        mounted = {mount["name"] for c in containers(pod) for mount in c.get("volumeMounts", [])}
        assert mounted == volumes.keys(), "mounts and volumes"
        for volume in volumes.values():
            sources = [volume, *volume.get("projected", {}).get("sources", [])]
            for source in sources:
                if "configMap" in source:
                    assert source["configMap"]["name"] in names(manifests, "ConfigMap")
                if "secret" in source:
                    name = source["secret"].get("secretName") or source["secret"]["name"]
                    assert name in names(manifests, "Secret")
                if "persistentVolumeClaim" in source:
                    claim = source["persistentVolumeClaim"]["claimName"]
                    assert claim in names(manifests, "PersistentVolumeClaim")
        for container in containers(pod):
            for origin in container.get("envFrom", []):
                assert origin["secretRef"]["name"] in names(manifests, "Secret")
            ports = {p["name"] for p in container.get("ports", [])}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                if probe in container:
                    assert container[probe]["httpGet"]["port"] in ports
            paths = [mount["mountPath"] for mount in container.get("volumeMounts", [])]
            assert len(paths) == len(set(paths))
            assert not any("subPath" in mount for mount in container.get("volumeMounts", []))


@every_value_file
def test_files_that_settings_name_are_mounted(values: Path):
    manifests = render(of_file(values))
    gateway = one(manifests, "Deployment", gateway_name(manifests))["spec"]["template"]
    container = gateway["spec"]["containers"][0]
    volumes = {volume["name"]: volume for volume in gateway["spec"]["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in container["volumeMounts"]}
    for variable, value in environment(container).items():
        if not value.startswith("/etc/"):
            continue
        folder, _, file = value.rpartition("/")
        volume = mounts[folder]
        if "configMap" in volume:
            assert file in one(manifests, "ConfigMap", volume["configMap"]["name"])["data"], variable
        made = kinds(manifests, "Secret")
        if "secret" in volume and volume["secret"]["secretName"] in {m["metadata"]["name"] for m in made}:
            assert file in one(manifests, "Secret", volume["secret"]["secretName"])["stringData"], variable


def workloads(manifests: list[Manifest]) -> list[Manifest]:
    """Whatever serves."""
    return kinds(manifests, "Deployment") + kinds(manifests, "StatefulSet")


@pytest.mark.parametrize(
    ("sets", "count"),
    [
        (("triton.replicas=3",), 3),
        (("autoscaling.mode=keda", "autoscaling.max=5", "autoscaling.keda.prometheus=http://prometheus"), 5),
    ],
)
def test_gateways_are_told_every_triton_by_its_name(sets: tuple[str, ...], count: int):
    manifests = render(of_sets("triton.mode=deployment", *sets))
    triton, service = one(manifests, "StatefulSet"), one(manifests, "Service", "test-atelier-triton")
    gateway = one(manifests, "Deployment")["spec"]["template"]["spec"]["containers"][0]
    assert triton["spec"]["serviceName"] == service["metadata"]["name"]
    assert environment(gateway)["ATELIER_TRITON_URL"].split(",") == [
        f"{triton['metadata']['name']}-{i}.{service['metadata']['name']}.pictures.svc:8001"
        for i in range(count)
    ]


def gateway_name(manifests: list[Manifest]) -> str:
    return min((m["metadata"]["name"] for m in kinds(manifests, "Deployment")), key=len)


@every_value_file
def test_gpus_are_where_the_computing_is_and_rollouts_do_not_wait_for_them(values: Path):
    manifests = render(of_file(values))
    for deployment in workloads(manifests):
        spec = deployment["spec"]
        pod = spec["template"]["spec"]
        with_gpu = [
            c["name"]
            for c in containers(spec["template"])
            if any(name.startswith("nvidia.com/") for name in c["resources"]["limits"])
        ]
        rolling = spec.get("strategy", {}).get("rollingUpdate")  # a StatefulSet never adds one
        if with_gpu:
            assert len(with_gpu) == 1
            assert rolling in (None, {"maxSurge": 0, "maxUnavailable": 1})
            assert {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"} in pod[
                "tolerations"
            ]
        elif rolling:
            assert rolling["maxUnavailable"] == 0
        expected = {"gateway": ["gateway"], "triton": ["triton"]}
        component = spec["template"]["metadata"]["labels"]["app.kubernetes.io/component"]
        device = environment(pod["containers"][0]).get("ATELIER_DEVICE")
        assert with_gpu in ([], expected[component], ["triton"])
        assert device in (None, "cuda" if with_gpu == ["gateway"] else "cpu")


@every_value_file
def test_nothing_is_killed_before_it_had_the_time_that_it_was_promised(values: Path):
    manifests = render(of_file(values))
    for deployment in workloads(manifests):
        pod = deployment["spec"]["template"]["spec"]
        promised = 0
        for container in pod["containers"]:
            hook = (
                container.get("lifecycle", {})
                .get("preStop", {})
                .get("exec", {})
                .get("command", ["sleep", "0"])
            )
            said = environment(container)
            grace = [word for word in container["command"] if word.startswith("--exit-timeout-secs=")]
            promised = max(
                promised,
                int(hook[1])
                + int(said.get("ATELIER_DRAIN_DELAY", 0))
                + int(said.get("ATELIER_SHUTDOWN_GRACE", 0))
                + sum(int(word.partition("=")[2]) for word in grace),
            )
        assert promised > 0
        assert pod["terminationGracePeriodSeconds"] > promised


def test_pods_are_replaced_when_their_configuration_changes_and_not_otherwise():
    def template(*sets: str) -> Manifest:
        return one(render(of_sets(*sets)), "Deployment")["spec"]["template"]

    assert template("config.max_count=10") != template("config.max_count=11")
    assert template("service.headless=false", "replicas=3") == template()
    keys = ("access.apiKeys.toml=a", "access.apiKeys.toml=b")  # read again by the gateway itself
    assert template(keys[0]) == template(keys[1])


def test_a_changed_training_is_another_job():
    pvc = ("modelRepository.source=pvc", "modelRepository.pvc.existingClaim=models", "training.enabled=true")

    def name(*sets: str) -> str:
        return one(render(of_sets(*pvc, "training.model=x", *sets)), "Job")["metadata"]["name"]

    first = name("training.recipe=a")
    assert name("training.recipe=b") != first
    assert name("training.recipe=a", "training.retries=9") != first
    assert name("training.recipe=a", "replicas=7") == first


@pytest.mark.parametrize("length", [1, 39, 53])
def test_names_fit_however_long_the_release_is_called(length: int):
    import charts

    release = "r" * length
    files = [charts.CHART / "ci" / f"{name}-values.yaml" for name in ("training-cron", "triton-deployment")]
    for path in files:
        ended = charts.run_helm("template", release, charts.CHART, *of_file(path))
        for manifest in charts.yaml.safe_load_all(ended.stdout):
            longest = 52 if manifest["kind"] == "CronJob" else 63
            assert len(manifest["metadata"]["name"]) <= longest


def test_values_reach_the_gateway_as_they_are():
    import tomllib

    manifests = render(
        of_sets(
            "config.max_pending_bytes=8589934592", "config.default_deadline=2.5", "config.log_level=debug"
        )
    )
    assert tomllib.loads(one(manifests, "ConfigMap")["data"]["atelier.toml"]) == {
        "default_deadline": 2.5,
        "log_level": "debug",
        "max_pending_bytes": 8589934592,
    }
