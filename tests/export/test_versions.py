"""What is decided of published versions holds for all graphs of a model, and refuses what would break it."""

import dataclasses
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from rich.console import Console
from tiny_models import candidates

from export.publish import PublishError, publish, published
from export.versions import add_probes, prune, set_policy, set_shares
from export.versions_command import main, parser, policy, run, shares
from serving.manifest import render
from serving.manifest.probe import difference, probe_inputs
from serving.manifest.version_policy import ALL, PUBLISHED, VersionPolicy


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model of two graphs in three versions."""
    folder = tmp_path / "repository"
    for factor in (1.0, 2.0, 3.0):
        publish(folder, candidates(factor=factor))
    return folder


def test_what_is_published_serves_two_versions_and_has_a_probe(repository: Path) -> None:
    for manifest in published(repository).values():
        assert manifest.version_policy == PUBLISHED == VersionPolicy(latest=2)
        probes = [record.probe for record in manifest.versions.values()]
        assert all(probe is not None and set(probe.outputs) for probe in probes)


def test_policy_and_shares_hold_for_every_graph_and_for_later_publications(repository: Path) -> None:
    set_policy(repository, "tiny", ALL)
    set_shares(repository, "tiny", {1: 0.9, 3: 0.1})
    publish(repository, candidates(factor=4.0))
    for manifest in published(repository).values():
        assert (manifest.version_policy, manifest.canary) == (ALL, {1: 0.9, 3: 0.1})
        assert sorted(manifest.versions) == [1, 2, 3, 4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (
            lambda r: set_policy(r, "tiny", VersionPolicy(specific=(9,))),
            "none of the versions 9; it has 1, 2, 3",
        ),
        (lambda r: set_shares(r, "tiny", {1: 1.0}), "version 1 of 'tiny' is not served: its policy latest:2"),
        (lambda r: set_shares(r, "nobody", {1: 1.0}), "no model 'nobody' .*there are tiny"),
        (lambda r: prune(r, "tiny", 0), "keep 1 or more"),
        (
            lambda r: (set_shares(r, "tiny", {2: 1.0}), set_policy(r, "tiny", VersionPolicy(latest=1))),
            "leaves out version 2, which has a share",
        ),
        (lambda r: (set_shares(r, "tiny", {2: 1.0}), prune(r, "tiny", 1)), "version 2 of 'tiny' is in its"),
    ],
)
def test_what_would_break_what_is_served_is_refused(repository: Path, change, reason: str) -> None:
    with pytest.raises(PublishError, match=reason):
        change(repository)


def test_old_versions_are_removed_with_their_records(repository: Path) -> None:
    assert prune(repository, "tiny", 2) == [1]
    for graph, manifest in published(repository).items():
        assert sorted(manifest.versions) == [2, 3]
        assert not (repository / graph / "1").exists()
    assert publish(repository, candidates(factor=5.0)) == 4


def test_a_probe_is_added_to_what_was_published_without_and_only_to_that_file(repository: Path) -> None:
    bare = dataclasses.replace(published(repository)["tiny_encoder"])
    without = {v: dataclasses.replace(record, probe=None) for v, record in bare.versions.items()}
    (repository / "tiny_encoder" / "config.pbtxt").write_text(
        render(dataclasses.replace(bare, versions=without))
    )
    assert add_probes(repository, "tiny") == [1, 2, 3]
    assert published(repository)["tiny_encoder"] == bare
    assert add_probes(repository, "tiny") == []
    (repository / "tiny_encoder" / "config.pbtxt").write_text(
        render(dataclasses.replace(bare, versions=without))
    )
    (repository / "tiny_encoder" / "2" / "model.onnx").write_bytes(b"other")
    with pytest.raises(PublishError, match="not the file that was published"):
        add_probes(repository, "tiny")


def test_a_probe_tells_another_version_and_noise_that_is_too_much(repository: Path) -> None:
    manifest = published(repository)["tiny_decoder"]
    probe = manifest.versions[1].probe
    assert probe is not None
    inputs = probe_inputs(manifest, seed=probe.seed, rows=probe.rows)

    def outputs(version: int) -> dict[str, np.ndarray]:
        session = onnxruntime.InferenceSession(repository / "tiny_decoder" / str(version) / "model.onnx")
        names = [spec.name for spec in manifest.outputs]
        return dict(zip(names, session.run(names, inputs), strict=True))

    assert difference(probe, outputs(1)) is None
    assert "differs by" in (difference(probe, outputs(2)) or "")
    (name, right), *_ = outputs(1).items()
    scale = float(np.sqrt(np.mean(right.astype(np.float64) ** 2)))
    noise = np.random.default_rng(0).standard_normal(right.shape).astype(np.float32) * scale
    assert difference(probe, {name: right + 1e-3 * noise}) is None
    assert "differs by" in (difference(probe, {name: right + 0.2 * noise}) or "")
    assert "not finite" in (difference(probe, {name: np.full_like(right, np.nan)}) or "")
    assert "gives no" in (difference(probe, {}) or "")


def test_the_command_changes_and_shows_what_holds(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    console = Console(width=100, highlight=False)
    arguments = ["tiny", "--repository", str(repository), "--shares", "2:0.75,3:0.25", "--keep", "2"]
    run(parser().parse_args(arguments), console)
    said = capsys.readouterr().out
    assert "removed: 1" in said
    assert [line.split()[-2] for line in said.splitlines()[-2:]] == ["75%", "25%"]
    assert "latest:2" in said
    assert main(["nobody", "--repository", str(repository)]) == 2
    assert "there are tiny" in capsys.readouterr().err
    assert main(["--repository", str(repository), "--keep", "1"]) == 2
    with pytest.raises(SystemExit):
        main(["tiny", "--repository", str(repository), "--policy", "newest"])
    assert "'newest' is not understood" in capsys.readouterr().err


def test_what_a_person_writes_is_read() -> None:
    assert [policy(text) for text in ("latest:3", "all", "1,3")] == [
        VersionPolicy(latest=3),
        ALL,
        VersionPolicy(specific=(1, 3)),
    ]
    assert shares("1:0.9,2:0.1") == {1: 0.9, 2: 0.1}
    assert shares("none") == {}
