import os
from pathlib import Path

import pytest

from serving.settings import Settings, SettingsError, describe, flags, load_settings


def test_flags_are_stronger_than_the_environment_and_that_than_the_file(tmp_path: Path) -> None:
    config = tmp_path / "atelier.toml"
    config.write_text('host = "0.0.0.0"\nhttp_port = 1\ngrpc_port = 1\nmetrics_port = 1\n')
    environment = {"ATELIER_GRPC_PORT": "2", "ATELIER_METRICS_PORT": "2"}
    resolved = load_settings({"metrics_port": "3", "device": None}, config=config, environment=environment)
    settings = resolved.settings
    assert (settings.host, settings.http_port, settings.grpc_port, settings.metrics_port) == (
        "0.0.0.0",
        1,
        2,
        3,
    )
    assert settings.device == "auto"
    assert resolved.sources["host"] == str(config)
    assert resolved.sources["grpc_port"] == "ATELIER_GRPC_PORT"
    assert resolved.sources["metrics_port"] == "--metrics-port"
    assert resolved.sources["device"] == "default"


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    config = tmp_path / "atelier.toml"
    config.write_text("http_port = 99\n")
    assert load_settings(environment={"ATELIER_CONFIG": str(config)}).settings.http_port == 99


def test_what_is_printed_is_a_file_that_gives_the_same_settings(tmp_path: Path) -> None:
    resolved = load_settings({"max_count": "7", "log_level": "debug"}, environment={})
    config = tmp_path / "printed.toml"
    config.write_text(describe(resolved))
    assert "max_count = 7" in config.read_text()
    assert "# --max-count" in config.read_text()
    assert load_settings(config=config, environment={}).settings == resolved.settings


def test_every_setting_has_a_flag_that_says_what_it_does() -> None:
    assert [flag.key for flag in flags()] == list(Settings.model_fields)
    assert all(len(flag.help) > 20 for flag in flags())
    device = next(flag for flag in flags() if flag.key == "device")
    assert (device.name, device.choices) == ("--device", ("auto", "cpu", "cuda"))


def test_an_unknown_key_is_an_error_that_names_the_nearest(tmp_path: Path) -> None:
    config = tmp_path / "atelier.toml"
    config.write_text("htpp_port = 1\n")
    with pytest.raises(
        SettingsError, match=r"atelier\.toml: no setting 'htpp_port'; did you mean 'http_port'"
    ):
        load_settings(config=config, environment={})
    with pytest.raises(SettingsError, match=r"ATELIER_GRPC_PROT: .* did you mean 'grpc_port'"):
        load_settings(environment={"ATELIER_GRPC_PROT": "1"})


def test_variables_that_kubernetes_adds_for_a_service_called_atelier_are_let_be() -> None:
    environment = {
        "ATELIER_SERVICE_HOST": "10.0.0.1",
        "ATELIER_SERVICE_PORT_HTTP": "8080",
        "ATELIER_PORT": "tcp://10.0.0.1:8080",
        "ATELIER_PORT_8080_TCP_ADDR": "10.0.0.1",
    }
    assert load_settings(environment=environment).settings == Settings()


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("http_port", "x", "valid integer"),
        ("http_port", "70000", "less than or equal to 65535"),
        ("device", "tpu", "'auto', 'cpu' or 'cuda'"),
        ("max_count", "0", "greater than or equal to 1"),
    ],
)
def test_a_value_out_of_range_is_named_with_its_source(key: str, value: str, reason: str) -> None:
    variable = f"ATELIER_{key.upper()}"
    with pytest.raises(SettingsError, match=f"{variable}: {key} = '{value}'.*{reason}"):
        load_settings(environment={variable: value})


def test_a_file_that_is_missing_or_not_toml_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.toml: cannot be read: No such file"):
        load_settings(config=tmp_path / "none.toml", environment={})
    broken = tmp_path / "broken.toml"
    broken.write_text("a = = b")
    with pytest.raises(SettingsError, match=r"broken\.toml: not TOML"):
        load_settings(config=broken, environment=os.environ)
