"""A Triton by itself, over a repository into which a version is being published."""

import dataclasses
import os
import shutil
import time
from pathlib import Path

import tiny_graphs
from tritonclient.grpc import InferenceServerClient

from serving.manifest import parse, render
from tests.triton.server import few_instances, need_triton, triton_server

GAN = "tiny_gan"
PATIENCE = 60.0


def ready(client: InferenceServerClient) -> set[int]:
    """The versions that it serves."""
    models = client.get_model_repository_index().models
    return {int(model.version) for model in models if model.name == GAN and model.state == "READY"}


def test_a_triton_that_starts_between_the_renames_serves_what_is_recorded_and_then_the_new_version(
    tmp_path: Path,
) -> None:
    need_triton()
    tiny_graphs.publish_gan(tmp_path / "published", versions=2)
    folder = few_instances(tmp_path / "published", tmp_path / "repository") / GAN
    shutil.copytree(folder / "2", folder / "3")  # the first rename of a publication
    with (
        triton_server(folder.parent, control="poll", flags=["--repository-poll-secs=1"]) as server,
        InferenceServerClient(server.grpc_address) as client,
    ):
        assert ready(client) == {1, 2}
        before = (folder / "config.pbtxt").read_text("utf-8")
        manifest = parse(before, GAN)
        records = {**manifest.versions, 3: manifest.versions[2]}
        instances = before[len(render(manifest)) :]
        after = render(dataclasses.replace(manifest, versions=records)) + instances
        (tmp_path / "new.pbtxt").write_text(after, "utf-8")
        os.replace(tmp_path / "new.pbtxt", folder / "config.pbtxt")  # the second
        deadline = time.monotonic() + PATIENCE
        while ready(client) != {2, 3}:
            assert time.monotonic() < deadline, server.said()
            time.sleep(0.1)
