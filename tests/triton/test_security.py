"""TLS and mutual TLS between gateway and Triton."""

from pathlib import Path

import pytest
from certificates import Authority

from serving.errors import Code, ServingError
from tests.triton.backends import BLUR, SMALL, over, translating
from tests.triton.server import triton_server


@pytest.mark.parametrize("mutual", [False, True])
async def test_a_server_is_asked_over_tls(translators: Path, tmp_path: Path, mutual: bool) -> None:
    authority = Authority(tmp_path)
    server_pair, client_pair = authority.certify("server"), authority.certify("client")
    flags = ["--grpc-use-ssl=true", f"--grpc-server-cert={server_pair.cert}"]
    flags += [f"--grpc-server-key={server_pair.key}", f"--grpc-root-cert={authority.cert}"]
    flags += ["--grpc-use-ssl-mutual=true"] if mutual else []
    trust = {"triton_tls_ca": str(authority.cert)}
    shown = {"triton_tls_cert": str(client_pair.cert), "triton_tls_key": str(client_pair.key)}
    with triton_server(translators, flags=flags) as server:
        async with translating(server, **trust, **(shown if mutual else {})) as backend:
            outputs, _ = await backend.infer(BLUR, 1, SMALL)
            assert outputs["translated"].shape == SMALL["image"].shape
        stranger = Authority(tmp_path, "stranger")
        refused = [{}, {"triton_tls_ca": str(stranger.cert)}]
        refused += [trust] if mutual else []
        for settings in refused:
            async with over(server, **settings) as backend:
                with pytest.raises(ServingError) as error:
                    await backend.index()
                assert error.value.code == Code.UNAVAILABLE
