"""A model is published whole or not at all, whatever happens meanwhile."""

from __future__ import annotations

import dataclasses
import fcntl
import hashlib
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format
from tiny_models import candidates
from tritonclient.grpc import model_config_pb2

from export.publish import Candidate, PublishError, plan, publish, published, update_quality
from export.transaction import LOCK, STAGING, transaction, write
from serving.manifest import NoiseSchedule, Parameterization, Sampling, from_config

SCRIPT = Path(__file__).with_name("tiny_models.py")


def served(repository: Path, model: str = "tiny") -> dict[int, float]:
    """The versions that a gateway may serve, which every graph has, with the factor that each computes.

    Every file of such a version must be there and match its digest.
    """
    manifests = [m for m in published(repository).values() if m.model == model]
    if not manifests or {m.role for m in manifests} != set(manifests[0].roles):
        return {}
    versions = set.intersection(*(set(m.versions) for m in manifests))
    factors = {}
    for version in versions:
        for manifest in manifests:
            content = (repository / manifest.graph / str(version) / "model.onnx").read_bytes()
            assert hashlib.sha256(content).hexdigest() == manifest.versions[version].sha256
            if manifest.role == manifest.roles[0]:
                session = onnxruntime.InferenceSession(content)
                factors[version] = float(session.run(None, {"latent": np.ones((1, 4), np.float32)})[0][0, 0])
    return factors


def loaded_by_triton(repository: Path) -> dict[str, set[int]]:
    """The versions that a Triton loads which starts now, by configuration: it looks at folders, not records.

    Every one of them must be recorded, and match its digest.
    """
    loaded = {}
    for path in (*repository.glob("[!.]*/config.pbtxt"), *repository.glob("[!.]*/configs/*.pbtxt")):
        folder = repository / path.relative_to(repository).parts[0]
        config = text_format.Parse(path.read_text("utf-8"), model_config_pb2.ModelConfig())
        there = sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdecimal())
        match config.version_policy.WhichOneof("policy_choice"):
            case "specific":
                versions = set(there) & set(config.version_policy.specific.versions)
            case "latest":
                versions = set(there[-config.version_policy.latest.num_versions :])
            case choice:
                versions = set(there if choice == "all" else there[-1:])
        records = from_config(config).versions
        for version in versions:
            content = (folder / str(version) / "model.onnx").read_bytes()
            assert hashlib.sha256(content).hexdigest() == records[version].sha256
        loaded[str(path)] = versions
    return loaded


def litter(repository: Path) -> list[str]:
    """What no configuration knows of: hidden folders, and version folders without a record."""
    manifests = published(repository)
    found = [path.name for path in repository.glob(".*") if path.name != LOCK]
    for folder in repository.glob("[!.]*"):
        known = (
            {str(version) for version in manifests[folder.name].versions}
            if folder.name in manifests
            else set()
        )
        found += [
            str(path) for path in folder.iterdir() if path.is_dir() and path.name not in known | {"configs"}
        ]
    return found


def test_all_graphs_of_a_model_appear_under_its_first_version(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert publish(repository, candidates(factor=3.0)) == 1
    assert served(repository) == {1: 3.0}
    assert sorted(path.name for path in repository.iterdir()) == [LOCK, "tiny_decoder", "tiny_encoder"]
    assert litter(repository) == []


def test_old_versions_and_their_records_stay(tmp_path: Path) -> None:
    for factor in (1.0, 2.0, 3.0):
        publish(tmp_path, candidates(factor=factor))
    assert served(tmp_path) == {1: 1.0, 2: 2.0, 3: 3.0}
    assert published(tmp_path)["tiny_decoder"].metadata["factor"] == "3.0"


def test_a_version_asked_for_is_taken_and_the_next_one_follows_it(tmp_path: Path) -> None:
    assert publish(tmp_path, candidates(), 7) == 7
    assert publish(tmp_path, candidates()) == 8


def test_a_model_of_one_graph_bears_the_models_name(tmp_path: Path) -> None:
    publish(tmp_path, candidates("gan", roles=("generator",)))
    assert (tmp_path / "gan" / "1" / "model.onnx").exists()


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    repository = tmp_path / "repository"
    assert plan(repository, [candidate.manifest for candidate in candidates()]) == 1
    assert not repository.exists()


@pytest.mark.parametrize("first", [True, False], ids=["first version", "second version"])
def test_a_kill_at_any_moment_leaves_the_old_or_the_new_state(tmp_path: Path, first: bool) -> None:
    repository, copies = tmp_path / "repository", tmp_path / "copies"
    copies.mkdir()
    if not first:
        publish(repository, candidates(factor=1.0))
    command = [sys.executable, str(SCRIPT), str(repository), str(copies)]
    result = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    moments = int(result.stdout)
    assert moments > 10
    old = {} if first else {1: 1.0}
    new = {**old, max(old, default=0) + 1: 2.0}
    seen = []
    for moment in range(moments + 1):
        copy = copies / str(moment)
        state = served(copy)
        assert state in (old, new)
        assert all(found in (set(old), set(new)) for found in loaded_by_triton(copy).values())
        seen.append(state)
        decided = (copy / STAGING / "decided").exists() or state == new
        version = publish(copy, candidates(factor=5.0))
        assert served(copy) == {**(new if decided else old), version: 5.0}
        assert litter(copy) == []
    assert seen == sorted(seen, key=len)
    assert seen[0] == old
    assert seen[-1] == new


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_write_that_the_system_refuses_leaves_the_old_state(tmp_path: Path) -> None:
    publish(tmp_path, candidates(factor=1.0))
    with (
        largest_file(100_000),
        pytest.raises(
            PublishError, match="File too large; what was published before is as it was: free some"
        ),
    ):
        publish(tmp_path, candidates(factor=2.0, weights=50_000))
    assert served(tmp_path) == {1: 1.0}
    assert litter(tmp_path) == []
    assert publish(tmp_path, candidates(factor=2.0)) == 2


FULL_DISK = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from tiny_models import candidates
from export.publish import PublishError, publish, published
repository = Path({repository!r})
publish(repository, candidates(factor=1.0))
try:
    publish(repository, candidates(factor=2.0, weights=20_000))
except PublishError as error:
    print(error)
assert [sorted(m.versions) for m in published(repository).values()] == [[1], [1]]
assert not [p for p in repository.rglob("*") if p.name in (".publishing", ".discarded", "2")]
print("then", publish(repository, candidates(factor=2.0)))
"""


def test_a_full_disk_leaves_the_old_state_and_is_named(tmp_path: Path) -> None:
    script = FULL_DISK.format(here=str(SCRIPT.parent), repository=str(tmp_path))
    mount = f"mount -t tmpfs -o size=128k tmpfs {tmp_path} 2>&1 || exit 77"
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", f'{mount}; exec "$@"', "sh"]
    if shutil.which("unshare") is None:
        pytest.skip("needs unshare to mount a disk small enough to fill")
    result = subprocess.run(
        [*command, sys.executable, "-c", script], capture_output=True, text=True, timeout=60
    )
    if result.returncode == 77 or "unshare failed" in result.stderr:
        pytest.skip(f"may not mount a disk small enough to fill: {result.stdout}{result.stderr}")
    assert result.returncode == 0, result.stderr
    assert "No space left on device" in result.stdout
    assert "free some space or name another repository with --to" in result.stdout
    assert result.stdout.endswith("then 2\n")


def test_what_an_error_leaves_behind_is_gone_at_once(tmp_path: Path) -> None:
    def interrupted() -> None:
        with transaction(tmp_path) as tree:
            write(tree / "tiny_decoder" / "2" / "model.onnx", b"half")
            raise KeyboardInterrupt

    publish(tmp_path, candidates())
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert litter(tmp_path) == []
    assert sorted(path.name for path in (tmp_path / "tiny_decoder").iterdir()) == [
        "1",
        "config.pbtxt",
        "configs",
    ]


def test_a_second_publisher_is_turned_away(tmp_path: Path) -> None:
    publish(tmp_path, candidates())
    with (tmp_path / LOCK).open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(PublishError, match=f"another process is publishing into {tmp_path}: wait"):
            publish(tmp_path, candidates(factor=2.0))
    assert publish(tmp_path, candidates(factor=2.0)) == 2


def test_a_file_that_is_not_what_was_written_is_not_published(tmp_path: Path) -> None:
    first, second = candidates()
    wrong = dataclasses.replace(second, record=dataclasses.replace(second.record, sha256="0" * 64))
    with pytest.raises(PublishError, match="tiny_encoder: the file read back has another digest"):
        publish(tmp_path, [first, wrong])
    assert litter(tmp_path) == []
    assert published(tmp_path) == {}


def test_a_model_whose_tensors_are_not_its_manifests_is_not_published(tmp_path: Path) -> None:
    (one,) = candidates("gan", roles=("generator",))
    tensor = dataclasses.replace(one.manifest.inputs[0], name="noise")
    wrong = dataclasses.replace(one, manifest=dataclasses.replace(one.manifest, inputs=(tensor,)))
    with pytest.raises(PublishError, match=r"gan: the model's inputs are \['latent'\]"):
        publish(tmp_path, [wrong])


def test_a_version_that_exists_is_never_overwritten(tmp_path: Path) -> None:
    publish(tmp_path, candidates())
    with pytest.raises(PublishError, match=r"version 1 of 'tiny' exists .* to publish version 2"):
        publish(tmp_path, candidates(factor=2.0), 1)
    with pytest.raises(PublishError, match="version 0 is not possible: versions count from 1"):
        publish(tmp_path, candidates(), 0)
    assert served(tmp_path) == {1: 1.0}


def test_a_repository_without_a_parent_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PublishError, match=r"does not exist: create that folder first, or name another"):
        publish(tmp_path / "no" / "repository", candidates())
    (tmp_path / "file").write_text("")
    with pytest.raises(PublishError, match="is a file: name a folder"):
        publish(tmp_path / "file", candidates())


def test_a_repository_that_may_not_be_written_is_an_error_that_says_so(tmp_path: Path) -> None:
    publish(tmp_path, candidates())
    (tmp_path / STAGING).write_text("in the way")
    with pytest.raises(
        PublishError, match=r"cannot write 'tiny' into .* what was published before is as it was"
    ):
        publish(tmp_path, candidates(factor=2.0))


def test_a_changed_contract_is_refused_with_the_remedy(tmp_path: Path) -> None:
    publish(tmp_path, candidates(labels=("zero", "one")))
    with pytest.raises(PublishError, match=r"class_labels .* publish it as another model with --name"):
        publish(tmp_path, candidates(labels=("zero", "one", "two")))
    with pytest.raises(PublishError, match="has the graphs decoder, encoder and this run has decoder"):
        publish(tmp_path, candidates(roles=("decoder",), labels=("zero", "one")))
    assert served(tmp_path) == {1: 1.0}


def denoiser(sigma_max: float, steps: int) -> list[Candidate]:
    (one,) = candidates("unet", roles=("generator",), factor=steps)
    sampling = Sampling(
        parameterization=Parameterization(prediction="flow"),
        schedule=NoiseSchedule(kind="flow", sigma_min=0.001, sigma_max=sigma_max),
        sampler="euler",
        steps=steps,
    )
    manifest = dataclasses.replace(one.manifest, role="denoiser", roles=("denoiser",), sampling=sampling)
    return [dataclasses.replace(one, manifest=manifest)]


def test_another_noise_schedule_is_another_contract_and_other_steps_are_not(tmp_path: Path) -> None:
    publish(tmp_path, denoiser(999.0, steps=9))
    assert publish(tmp_path, denoiser(999.0, steps=4)) == 2
    with pytest.raises(PublishError, match=r"unet: schedule .*sigma_max=999\.0.*sigma_max=80\.0"):
        publish(tmp_path, denoiser(80.0, steps=9))


def test_a_name_that_another_model_has_taken_is_refused(tmp_path: Path) -> None:
    publish(tmp_path, candidates("tiny", roles=("decoder", "encoder")))
    with pytest.raises(
        PublishError, match=r"'tiny_decoder' in .* belongs to model 'tiny': choose another --name"
    ):
        publish(tmp_path, candidates("tiny_decoder", roles=("generator",)))
    (tmp_path / "resnet").mkdir()
    with pytest.raises(PublishError, match="is not a graph that atelier published: move it away"):
        publish(tmp_path, candidates("resnet", roles=("generator",)))


def test_figures_card_and_samples_are_recorded_together(tmp_path: Path) -> None:
    publish(tmp_path, candidates(factor=1.0))
    publish(tmp_path, candidates(factor=2.0))
    update_quality(tmp_path, "tiny", 2, {"accuracy": 0.99}, "# Tiny\n", b"png")
    for manifest in published(tmp_path).values():
        assert manifest.versions[2].quality == {"accuracy": 0.99}
        assert manifest.versions[1].quality == {}
    assert (tmp_path / "tiny_decoder" / "card.md").read_text() == "# Tiny\n"
    assert (tmp_path / "tiny_decoder" / "samples.png").read_bytes() == b"png"
    assert not (tmp_path / "tiny_encoder" / "card.md").exists()
    update_quality(tmp_path, "tiny", 2, {"accuracy": 1.0}, "# Better\n", b"other")
    assert (tmp_path / "tiny_decoder" / "card.md").read_text() == "# Better\n"
    assert served(tmp_path) == {1: 1.0, 2: 2.0}
    assert litter(tmp_path) == []


def test_a_next_version_keeps_the_figures_of_the_last(tmp_path: Path) -> None:
    publish(tmp_path, candidates())
    update_quality(tmp_path, "tiny", 1, {"accuracy": 0.99}, "# Tiny\n", b"png")
    publish(tmp_path, candidates(factor=2.0))
    assert published(tmp_path)["tiny_encoder"].versions[1].quality == {"accuracy": 0.99}


def test_figures_of_what_is_not_published_are_refused(tmp_path: Path) -> None:
    publish(tmp_path, candidates())
    with pytest.raises(PublishError, match=r"no model 'big' in .*: publish it with atelier export"):
        update_quality(tmp_path, "big", 1, {}, "", b"")
    with pytest.raises(PublishError, match=r"tiny_decoder in .* has no version 2; it has 1"):
        update_quality(tmp_path, "tiny", 2, {}, "", b"")
    assert litter(tmp_path) == []
