"""Generated code is what the proto says today."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_the_committed_protobuf_code_is_what_the_proto_generates(tmp_path):
    (tmp_path / "serving/pb").mkdir(parents=True)
    arguments = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        f"-Iserving/pb={ROOT / 'proto/atelier/v1'}",
        f"--python_out={tmp_path}",
        f"--pyi_out={tmp_path}",
        f"--grpc_python_out={tmp_path}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={tmp_path / 'serving/pb/image_generation.binpb'}",
        "serving/pb/image_generation.proto",
    ]
    subprocess.run(arguments, check=True)
    for generated in (tmp_path / "serving/pb").iterdir():
        committed = ROOT / "serving/pb" / generated.name
        assert committed.read_bytes() == generated.read_bytes(), f"{committed.name}: run `make proto`"
