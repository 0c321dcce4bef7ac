import json
import tomllib
from pathlib import Path

import pytest
import toy

from training.coerce import ConfigError
from training.config import parse_flags, read_file, resolve_config, to_toml


def test_flags_are_stronger_than_the_file_and_the_file_than_defaults():
    file = {"data": "toy", "steps": 100, "batch_size": 16, "toy": {"lr": 0.5, "dropout": 0.2}}
    config = resolve_config(toy.FAMILY, file, {"steps": "7", "toy.lr": "1e-3", "data_options.size": "6"})
    assert (config.steps, config.batch_size, config.seed) == (7, 16, 0)
    assert config.settings == toy.ToyConfig(lr=1e-3, dropout=0.2)
    assert config.data_options == {"size": 6}


@pytest.mark.parametrize(
    ("file", "flags", "message"),
    [
        ({"stepps": 3}, {}, "there is no setting 'stepps'; did you mean 'steps'?"),
        ({}, {"batchsize": "3"}, "there is no setting 'batchsize'; did you mean 'batch_size'?"),
        ({}, {"toy.lrr": "3"}, "there is no setting 'toy.lrr'; did you mean 'toy.lr'?"),
        ({}, {"dropout": "0"}, "there is no setting 'dropout'; did you mean 'toy.dropout'?"),
        ({"toy": {"drop_out": 0.1}}, {}, "there is no setting 'toy.drop_out'; did you mean 'toy.dropout'?"),
        ({"steps": "ten"}, {}, "steps = 'ten' is not possible: it must be an integer"),
        ({"steps": 0}, {}, "steps = 0 is not possible: it must be at least 1"),
        ({"toy": 3}, {}, "toy = 3 is not possible: it must be a table"),
        (
            {"toy": {"widths": 8}},
            {},
            "toy.widths = 8 is not possible: it must be a list, each item an integer",
        ),
        (
            {},
            {"schedule": "cos"},
            "schedule = 'cos' is not possible: it must be one of constant, cosine, linear",
        ),
        ({}, {"augment": "flop"}, "augment = 'flop' is not possible: each must be one of flip, shift"),
        ({}, {"ema_decay": "1"}, "ema_decay = 1.0 is not possible: it must be in [0, 1)"),
        (
            {"steps": 5, "warmup_steps": 5},
            {},
            "warmup_steps = 5 is not possible: it must be below steps = 5",
        ),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_the_remedy(file, flags, message):
    with pytest.raises(ConfigError) as error:
        resolve_config(toy.FAMILY, {"data": "toy"} | file, flags)
    assert str(error.value) == message


def test_a_file_for_another_family_is_refused():
    with pytest.raises(ConfigError, match="the configuration is for family 'gan', not 'toy'"):
        resolve_config(toy.FAMILY, {"family": "gan", "data": "toy"}, {})


def test_a_run_without_data_is_refused():
    with pytest.raises(ConfigError, match="name the data set with --data"):
        resolve_config(toy.FAMILY, {}, {})


def test_a_resolved_configuration_comes_back_from_toml_and_from_json(tmp_path: Path):
    flags = {"toy.widths": "4,5", "toy.clip": "none", "data_options.size": "6", "augment": "flip,shift"}
    config = resolve_config(toy.FAMILY, {"data": 'a "quoted"\npath'}, flags)
    (tmp_path / "a.toml").write_text(to_toml(config.plain()))
    (tmp_path / "a.json").write_text(json.dumps(config.plain()))
    for name in ("a.toml", "a.json"):
        assert resolve_config(toy.FAMILY, read_file(tmp_path / name), {}) == config


def test_tables_and_lists_are_written_as_toml_reads_them():
    values = {"a": [1, 2.5], "b": {"c": {"d": True}, "e f": "ü"}}
    assert tomllib.loads(to_toml(values)) == values


@pytest.mark.parametrize(("name", "kind"), [("broken.toml", "TOML"), ("broken.json", "JSON")])
def test_a_file_that_does_not_parse_is_named(tmp_path: Path, name: str, kind: str):
    (tmp_path / name).write_text("steps = = 3")
    with pytest.raises(ConfigError, match=rf"{name} is not valid {kind}"):
        read_file(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.toml: No such file"):
        read_file(tmp_path / "none.toml")


def test_a_flag_without_a_value_is_refused():
    assert parse_flags(["steps=1", "data=folder:/a=b"]) == {"steps": "1", "data": "folder:/a=b"}
    with pytest.raises(ConfigError, match="--set 'steps' must have the form key=value"):
        parse_flags(["steps"])
