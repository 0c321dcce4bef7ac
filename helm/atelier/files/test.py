"""What `helm test` does: asks for the models and for a picture, over HTTP, and for health, over gRPC."""

import json
import os
import ssl
from pathlib import Path
from urllib.request import Request, urlopen

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

certificates = [
    path for path in (Path("/etc/atelier/tls/ca.crt"), Path("/etc/atelier/tls/tls.crt")) if path.is_file()
]
context = None
if certificates:
    context = ssl.create_default_context(cafile=str(certificates[0]))
    # Without the signer's, the gateway's own certificate is what is trusted.
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN


def ask(path: str, body: dict | None = None, accept: str = "application/json") -> bytes:
    """The answer to a GET, or with a body to a POST."""
    headers = {"Accept": accept, "Content-Type": "application/json"}
    if key := os.environ.get("API_KEY"):
        headers["Authorization"] = f"Bearer {key}"
    data = None if body is None else json.dumps(body).encode()
    request = Request(os.environ["GATEWAY_HTTP"] + path, data, headers)  # noqa: S310 - the chart's own
    with urlopen(request, timeout=120, context=context) as answer:  # noqa: S310 - the same
        return answer.read()


models = json.loads(ask("/v1/models"))["models"]
print("models:", ", ".join(model["name"] for model in models))
able = [model for model in models if "TASK_GENERATE" in model["tasks"]]
name = os.environ.get("MODEL") or able[0]["name"]
model = next(model for model in models if model["name"] == name)
wish = {"seed": "1"}
if labels := model.get("classLabels"):
    wish["classLabel"] = labels[0]
picture = ask(f"/v1/models/{name}:generate", wish, "image/png")
if not picture.startswith(b"\x89PNG"):
    raise SystemExit(f"{name}: no picture came, but {picture[:200]!r}")
print(f"{name}: a picture of {len(picture)} bytes")

address = os.environ["GATEWAY_GRPC"]
if certificates:
    channel = grpc.secure_channel(address, grpc.ssl_channel_credentials(certificates[0].read_bytes()))
else:
    channel = grpc.insecure_channel(address)
with channel:
    # Health over gRPC follows readiness after a moment.
    for answer in health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=30):
        if answer.status == health_pb2.HealthCheckResponse.SERVING:
            break
print("gRPC: serving")
