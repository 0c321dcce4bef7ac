"""Triton's version policy, read and written as Triton does."""

import dataclasses

import living
import numpy as np
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from serving.manifest import ManifestError, VersionRecord, from_config, parse, render, to_config
from serving.manifest.probe import summarise
from serving.manifest.version_policy import ALL, PUBLISHED, TRITON_DEFAULT, VersionPolicy

RECORD = VersionRecord(sha256="0" * 64, max_abs_error=0.0)


@pytest.mark.parametrize(
    ("policy", "served", "text"),
    [
        (VersionPolicy(latest=1), (5,), "latest:1"),
        (VersionPolicy(latest=2), (3, 5), "latest:2"),
        (VersionPolicy(latest=9), (1, 3, 5), "latest:9"),
        (VersionPolicy(specific=(3, 1, 7)), (1, 3), "3,1,7"),
        (ALL, (1, 3, 5), "all"),
    ],
)
def test_a_policy_serves_what_it_says_and_survives_the_configuration(
    policy: VersionPolicy, served: tuple[int, ...], text: str
) -> None:
    assert policy.wanted([5, 1, 3]) == served
    assert str(policy) == text
    described = living.manifest("shade", version_policy=policy, versions={1: RECORD})
    assert parse(render(described), "shade") == described


def test_a_configuration_that_says_nothing_means_what_triton_takes_it_for() -> None:
    text = render(living.manifest("shade", versions={1: RECORD}))
    config = text_format.Parse(text, model_config_pb2.ModelConfig())
    config.ClearField("version_policy")
    assert parse(text_format.MessageToString(config), "shade").version_policy == TRITON_DEFAULT


def test_a_configuration_names_its_versions_and_remembers_the_policy_that_chose_them() -> None:
    """Triton counts folders: one that is not recorded yet must not be among the newest."""
    records = dict.fromkeys((1, 3, 4), RECORD)
    config = to_config(living.manifest("shade", versions=records))
    assert list(config.version_policy.specific.versions) == [3, 4]
    assert from_config(config).version_policy == PUBLISHED == VersionPolicy(latest=2)
    del config.version_policy.specific.versions[:]
    config.version_policy.specific.versions.append(1)  # by hand
    assert from_config(config).version_policy == VersionPolicy(specific=(1,))
    config.version_policy.latest.num_versions = 3  # by hand, or by an export of before
    assert from_config(config).version_policy == VersionPolicy(latest=3)


@pytest.mark.parametrize(
    "values", [{"latest": 0}, {"latest": 1, "specific": (1,)}, {"specific": (0,)}, {"latest": -1}]
)
def test_a_policy_that_makes_no_sense_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="version policy"):
        VersionPolicy(**values)


@pytest.mark.parametrize("canary", [{1: -0.1}, {1: 0.0}, {1: float("nan")}, {1: float("inf")}])
def test_shares_that_make_no_sense_are_refused(canary: dict[int, float]) -> None:
    with pytest.raises(ManifestError, match="canary"):
        living.manifest("shade", canary=canary)


def test_canary_and_probe_survive_the_configuration() -> None:
    probe = summarise({"sample": np.ones((2, 3), np.float32)}, seed=3, rows=2)
    records = {1: RECORD, 2: dataclasses.replace(RECORD, probe=probe)}
    described = living.manifest("shade", canary={1: 0.9, 2: 0.1}, versions=records)
    assert parse(render(described), "shade") == described


def test_a_record_may_say_what_a_later_export_has_to_say() -> None:
    text = render(living.manifest("shade", versions={1: RECORD}))
    later = text.replace('\\"max_abs_error\\"', '\\"from_the_future\\": [1], \\"max_abs_error\\"')
    assert later != text
    assert parse(later, "shade").versions == {1: RECORD}
