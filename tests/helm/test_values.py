"""Values: all described and typed, wrong ones refused by name, contradictions refused with the remedy."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml
from charts import CHART, ROOT, VALUE_FILES, of_sets, render, run_helm

from serving.settings import Settings

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
DEFAULTS = yaml.safe_load((CHART / "values.yaml").read_text())
DIGEST = "sha256:" + "ab" * 32


@pytest.fixture(scope="module")
def generate():
    """`helm/generate.py`."""
    spec = importlib.util.spec_from_file_location("chart_generate", ROOT / "helm" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def refusal(*sets: str, kubernetes: str = "1.33") -> str:
    """What helm says when it refuses."""
    ended = run_helm("template", "test", CHART, *of_sets(*sets), "--kube-version", f"{kubernetes}.0")
    assert ended.returncode != 0, f"{sets} were let through"
    return ended.stderr


def tables(schema: dict, path: str = "") -> list[tuple[str, dict]]:
    """Every object of a schema that has fields, by its path."""
    found = [(path, schema)] if "properties" in schema else []
    for key, below in schema.get("properties", {}).items():
        found += tables(below, f"{path}.{key}".lstrip("."))
    if isinstance(schema.get("items"), dict):
        found += tables(schema["items"], f"{path}[]")
    return found


def test_readme_and_schema_are_current(generate):
    for path, text in generate.generated().items():
        assert path.read_text("utf-8") == text, f"{path.name} is not current: run `make chart`"


def test_every_value_must_be_described(generate):
    assert len(generate.values((CHART / "values.yaml").read_text())) > 150
    with pytest.raises(ValueError, match=r"image\.tag has no comment"):
        generate.values("image:\n  # -- Its name.\n  name: x\n  tag: y\n")


def test_the_schema_lets_no_unknown_key_through():
    found = tables(SCHEMA) + [t for d in SCHEMA["definitions"].values() for t in tables(d)]
    assert len(found) > 40
    for path, table in found:
        assert table.get("additionalProperties") is False, path


def test_the_schema_and_the_defaults_have_the_same_keys():
    def compare(schema: dict, defaults: object, path: str) -> None:
        if "properties" not in schema or path == "config":
            return
        keys = set(schema["properties"]) - ({"global"} if not path else set())
        assert keys == set(defaults), path
        for key in keys:
            compare(schema["properties"][key], defaults[key], f"{path}.{key}".lstrip("."))

    compare(SCHEMA, DEFAULTS, "")


def test_every_setting_of_the_gateway_is_either_the_charts_or_the_users(generate):
    config = SCHEMA["properties"]["config"]["properties"]
    assert config.keys() == Settings.model_fields.keys() - generate.OWNED


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("replicas=many", "replicas"),
        ("replicas=-1", "replicas"),
        ("replica=2", "replica"),
        ("image.tagg=1", "tagg"),
        ("config.max_cout=1", "max_cout"),
        ("config.http_port=9000", "http_port"),
        ("config.max_count=0", "max_count"),
        ("config.log_level=loud", "log_level"),
        ("gpu.count=0", "count"),
        ("service.type=ExternalName", "type"),
        ("service.httpPort=70000", "httpPort"),
        ("resources.limits.memory=lots", "memory"),
        ("modelRepository.source=ftp", "source"),
        ("modelRepository.folder=../models", "folder"),
        ("modelRepository.archive.sha256=abc", "sha256"),
        ("modelRepository.oci.reference=registry/models:latest", "reference"),
        ("triton.url=triton", "url"),
        ("ingress.http.host=Atelier.example.org", "host"),
        ("autoscaling.mode=vpa", "mode"),
        ("podLabels.app\\.kubernetes\\.io/name=x", "app.kubernetes.io/name"),
        ("security.runAsUser=0", "runAsUser"),
        ("access.anonymous=anybody", "anonymous"),
        ("training.model=a model", "model"),
        ('extraEnv=[{"nmae":"X"}]', "extraEnv"),
    ],
)
def test_a_wrong_value_is_refused_by_name(value: str, named: str):
    assert named in refusal(value)


PVC = ("modelRepository.source=pvc", "modelRepository.pvc.existingClaim=models")
TRAINING = ("training.enabled=true", "training.recipe=x", "training.model=x")
KEDA = ("autoscaling.mode=keda", "autoscaling.keda.prometheus=http://prometheus:9090")


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["access.anonymous=nobody"], "set access.apiKeys.existingSecret"),
        (["ingress.enabled=true", "ingress.http.host=a.example.org"], "anybody could use it"),
        (["service.type=LoadBalancer"], "anybody could use it"),
        (["service.type=NodePort"], "anybody could use it"),
        (["access.apiKeys.existingSecret=a", "access.apiKeys.toml=b"], "keep one"),
        (["tls.existingSecret=a", "tls.certManager.enabled=true"], "keep one"),
        (["tls.certManager.enabled=true"], "tls.certManager.issuerRef.name"),
        (["tls.clientCASecret=a"], "set tls.existingSecret"),
        (["modelRepository.source=pvc"], "existingClaim or modelRepository.pvc.create"),
        ([*PVC, "modelRepository.pvc.create=true"], "existingClaim or modelRepository.pvc.create"),
        (["modelRepository.pvc.create=true"], "set modelRepository.source=pvc"),
        (["modelRepository.source=s3", "modelRepository.archive.url=gs://a/b.tar"], "begin with s3://"),
        (["modelRepository.source=http", "modelRepository.archive.url=https://a/b.tar"], "sha256 is missing"),
        (["modelRepository.archive.url=https://a/b.tar"], "set modelRepository.source"),
        (["modelRepository.source=oci"], "set modelRepository.oci.reference"),
        (["triton.mode=external"], "set triton.url"),
        (["triton.url=triton:8001"], "set triton.mode=external"),
        (["triton.tls.existingSecret=a"], "set triton.mode=external"),
        (
            ["triton.mode=external", "triton.url=t:8001", "triton.tls.mutual=true"],
            "triton.tls.existingSecret",
        ),
        (["triton.mode=external", "triton.url=t:8001", "gpu.enabled=true"], "gpu.enabled=false"),
        (["triton.mode=external", "triton.url=t:8001", *PVC], "leave it at image"),
        (["gpu.engineCacheClaim=engines"], "set gpu.enabled=true"),
        ([*KEDA, "triton.mode=external", "triton.url=t:8001"], "make it no faster"),
        (["autoscaling.mode=hpa", "triton.mode=deployment"], "set autoscaling.mode=keda"),
        (["autoscaling.mode=hpa", "autoscaling.min=9"], "autoscaling.min 9 is above autoscaling.max 8"),
        (["autoscaling.mode=hpa", "autoscaling.min=0"], "set autoscaling.mode=keda"),
        (
            [
                "autoscaling.mode=hpa",
                "autoscaling.targets.queueSeconds=0",
                "autoscaling.targets.pendingRows=0",
            ],
            "nothing would scale",
        ),
        (["autoscaling.mode=keda"], "set autoscaling.keda.prometheus"),
        ([*KEDA, "autoscaling.min=0"], "set autoscaling.keda.wakeUp.query"),
        (["rollout.maxSurge=0", "rollout.maxUnavailable=0"], "no rollout could begin"),
        (["gpu.enabled=true", "rollout.maxUnavailable=0"], "no rollout could begin"),
        (["podDisruptionBudget.maxUnavailable=0"], "no node could ever be drained"),
        (["ingress.enabled=true", "access.anonymous=everyone"], "set ingress.http.host or ingress.grpc.host"),
        (
            [
                *("ingress.enabled=true", "access.anonymous=everyone", "ingress.tlsSecret=a"),
                *("ingress.http.host=a.org", "ingress.grpc.host=a.org"),
            ],
            "are the same",
        ),
        (
            ["ingress.enabled=true", "access.anonymous=everyone", "ingress.grpc.host=a.org"],
            "needs ingress.tlsSecret",
        ),
        (["gatewayApi.enabled=true", "access.anonymous=everyone"], "set gatewayApi.parentRefs"),
        (
            [
                *(
                    "gatewayApi.enabled=true",
                    "access.anonymous=everyone",
                    'gatewayApi.parentRefs=[{"name":"a"}]',
                ),
                *('gatewayApi.http.hostnames=["a.org"]', 'gatewayApi.grpc.hostnames=["a.org"]'),
            ],
            "a.org is a host of HTTP and of gRPC",
        ),
        (["monitoring.serviceMonitor.enabled=true", "monitoring.podMonitor.enabled=true"], "counted twice"),
        ([*TRAINING], "set modelRepository.source=pvc"),
        ([*PVC, "training.enabled=true", "training.model=x"], "set training.recipe"),
        ([*PVC, "training.enabled=true", "training.recipe=x"], "set training.model"),
        ([*PVC, *TRAINING, "training.gpus=4"], "one process for each GPU"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_contradiction_is_refused_with_the_remedy(sets: list[str], said: str):
    assert said in refusal(*sets)


def test_an_image_volume_is_refused_where_kubernetes_has_none():
    oci = (
        "modelRepository.source=oci",
        "modelRepository.oci.mode=volume",
        f"modelRepository.oci.reference=registry/models@{DIGEST}",
    )
    assert "set it to pull" in refusal(*oci, kubernetes="1.30")
    assert render(of_sets(*oci), "1.31")


def test_an_older_kubernetes_is_refused():
    assert "kubeVersion: >=1.29" in refusal(kubernetes="1.28")


def test_what_is_in_a_file_of_values_is_no_secret_and_no_default():
    """Each file is a way of its own: it says in its first line which, and changes something."""
    for path in VALUE_FILES:
        text = Path(path).read_text()
        assert text.startswith("# "), path.name
        if path.stem != "default-values":
            assert yaml.safe_load(text), path.name
