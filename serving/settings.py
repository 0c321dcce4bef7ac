"""Settings of the gateway: a TOML file, then `ATELIER_*` variables, then flags; the last that speaks wins."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

ENVIRONMENT_PREFIX = "ATELIER_"
CONFIG_VARIABLE = "ATELIER_CONFIG"

# Kubernetes puts ATELIER_SERVICE_HOST, ATELIER_PORT_8080_TCP and so on into every container beside a
# Service that is called `atelier`: these are nobody's settings.
_SERVICE_LINK = re.compile(r"(SERVICE_(HOST|PORT)|PORT)(_.*)?")

# What clients are told, in the same environment as often as not.
_CLIENTS = frozenset({"ATELIER_ADDRESS", "ATELIER_API_KEY", "ATELIER_TLS_CA"})

OptionalPath = Annotated[Path | None, BeforeValidator(lambda value: value or None)]
"""A path that need not be given; empty words are none, so that a variable can be left empty."""


class SettingsError(ValueError):
    """A setting that cannot be used: names where it came from, its value and the remedy."""


def _names(value: Any) -> Any:
    """A list as variables and flags have it, separated by commas."""
    return [name.strip() for name in value.split(",") if name.strip()] if isinstance(value, str) else value


class Settings(BaseModel):
    """What the gateway is told when it starts."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    repository: Path = Path("model_repository")
    """Folder of the model repository."""
    model_control: Literal["none", "poll", "explicit"] = "poll"
    """Whether the repository is read once, followed, or models are loaded and unloaded when told to."""
    poll_seconds: float = Field(default=5.0, gt=0)
    """Seconds between two looks at the repository, for poll."""
    load_models: Annotated[tuple[str, ...], BeforeValidator(_names)] = ()
    """Models loaded at the start, for explicit: names separated by commas, * for all that are there then."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    http_port: int = Field(default=8080, ge=0, le=65535)
    """Port of HTTP; 0 takes a free one."""
    grpc_port: int = Field(default=8081, ge=0, le=65535)
    """Port of gRPC; 0 takes a free one."""
    metrics_port: int = Field(default=8082, ge=0, le=65535)
    """Port of /metrics; 0 takes a free one."""
    backend: str = "onnxruntime"
    """Engine that computes, by its name in `serving.backends`."""
    triton_url: str = Field(default="127.0.0.1:8001", min_length=1)
    """Triton servers for the backend `triton`: host:port of gRPC, several with commas."""
    triton_tls_ca: str = ""
    """PEM file of the authorities that Triton's certificate is checked against; none for no TLS."""
    triton_tls_cert: str = ""
    """PEM file of the certificate that is shown to Triton, for mutual TLS."""
    triton_tls_key: str = ""
    """PEM file of its key."""
    triton_shared_memory: Literal["off", "system", "cuda"] = "off"
    """How large tensors go to a Triton on this host: in messages, or in memory of the host or of a GPU."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where graphs run; auto takes a GPU if there is one, cuda is not ready without."""
    accelerator: Literal["none", "tensorrt"] = "none"
    """What compiles graphs for a GPU; tensorrt is not ready where it is not to be had."""
    rewrite_graphs: bool = True
    """Rewrite graphs as they are loaded where they run on the CPU: faster, and equal up to rounding."""
    cuda_graphs: bool = True
    """Record the calls of each size of batch on a GPU and replay them."""
    tf32: bool = False
    """Let a GPU round factors to 10 bits: faster, and no longer what was compared with torch."""
    engine_cache: Path = Path("~/.cache/atelier/tensorrt")
    """Folder where TensorRT keeps the engines it has built."""
    instances: int = Field(default=0, ge=0, le=256)
    """Calls that run at a time; 0 for one a core."""
    threads: int = Field(default=1, ge=1, le=256)
    """Threads within one call."""
    picture_threads: int = Field(default=2, ge=1, le=64)
    """Threads that encode and decode pictures."""
    max_count: int = Field(default=256, ge=1)
    """Most images that one request may ask for."""
    max_images: int = Field(default=64, ge=1)
    """Most images that one request may bring."""
    max_image_pixels: int = Field(default=1_048_576, ge=1)
    """Most pixels that a request may bring, all of its images together."""
    max_message_bytes: int = Field(default=67_108_864, ge=65_536)
    """Largest request, in bytes."""
    client_shared_memory: bool = False
    """Whether clients may pass tensors of the Open Inference Protocol in shared memory of this host."""
    max_pending_rows: int = Field(default=4096, ge=1)
    """Rows that may be under way at a time; requests beyond are refused at the door."""
    max_pending_bytes: int = Field(default=1_073_741_824, ge=1)
    """Bytes of tensors that may be under way at a time; requests beyond are refused at the door."""
    max_batch_bytes: int = Field(default=16_777_216, ge=1)
    """Input bytes beyond which a batch takes no more rows."""
    cache_bytes: int = Field(default=0, ge=0)
    """Bytes of pictures kept for whoever asks for the same with the same seed; 0 keeps none."""
    default_deadline: float = Field(default=300.0, gt=0)
    """Seconds that a request may take where its client sets no deadline."""
    receive_timeout: float = Field(default=30.0, gt=0)
    """Seconds that a client of HTTP may take to send the head of a request, or 64 KiB of its body."""
    drain_delay: float = Field(default=0.0, ge=0)
    """Seconds for which the gateway, no longer ready, serves on before it stops: load balancers notice."""
    connection_age: float = Field(default=0.0, ge=0)
    """Seconds after which gRPC clients must connect anew; 0 for 0.8 of drain_delay, or never without one."""
    shutdown_grace: float = Field(default=10.0, ge=0)
    """Seconds that requests under way are given when the gateway stops."""
    api_keys: OptionalPath = None
    """TOML file of API keys, see `atelier keys`; read again when it changes."""
    tls_cert: OptionalPath = None
    """PEM file of the certificate, and of those between it and its authority; read again when it changes."""
    tls_key: OptionalPath = None
    """PEM file of the certificate's key."""
    tls_client_ca: OptionalPath = None
    """PEM file of the authorities by which clients must be certified (mTLS)."""
    allow_anonymous: bool = False
    """Whether anybody who reaches a public address may use the gateway, without key or certificate."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is logged."""
    log_format: Literal["text", "json"] = "text"
    """Lines of the log: text for people, json for collectors."""


@dataclass(frozen=True, kw_only=True)
class ResolvedSettings:
    """Settings, and who said each of them."""

    settings: Settings
    """The values."""
    sources: Mapping[str, str]
    """Where each value comes from: `default`, the file's path, the variable or the flag."""


@dataclass(frozen=True, kw_only=True)
class Flag:
    """A command-line flag of one setting."""

    name: str
    """As it is typed, for example `--http-port`."""
    key: str
    """Field of `Settings`."""
    help: str
    """What it does, with its default."""
    choices: tuple[str, ...] | None
    """Allowed values, where they can be counted."""


def flags() -> list[Flag]:
    """A flag for each setting, in their order; a flag that is not given must stay None."""
    return [
        Flag(
            name=flag_name(key),
            key=key,
            help=f"{(field.description or '').rstrip('.')} (default: {_shown(field.default)})",
            choices=_choices(field.annotation),
        )
        for key, field in Settings.model_fields.items()
    ]


def _choices(annotation: Any) -> tuple[str, ...] | None:
    if annotation is bool:
        return ("true", "false")
    return tuple(map(str, get_args(annotation))) if get_origin(annotation) is Literal else None


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(default)


def flag_name(key: str) -> str:
    """The flag of a field: `http_port` is `--http-port`."""
    return "--" + key.replace("_", "-")


def load_settings(
    given: Mapping[str, Any] | None = None,
    *,
    config: Path | None = None,
    environment: Mapping[str, str] = os.environ,
) -> ResolvedSettings:
    """Settings from a file (`config`, else ATELIER_CONFIG), the environment and `given` flags by key.

    Flags that are None were not given. Raises `SettingsError`.
    """
    if config is None and environment.get(CONFIG_VARIABLE):
        config = Path(environment[CONFIG_VARIABLE])
    values: dict[str, Any] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    layers = [
        _from_file(config) if config is not None else {},
        _from_environment(environment),
        {key: (flag_name(key), value) for key, value in (given or {}).items() if value is not None},
    ]
    for layer in layers:
        for key, (source, value) in layer.items():
            if key not in Settings.model_fields:
                raise SettingsError(f"{source}: no setting {key!r}; {_nearest(key, Settings.model_fields)}")
            values[key], sources[key] = value, source
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise SettingsError("; ".join(_reasons(error, values, sources))) from error
    return ResolvedSettings(settings=settings, sources=sources)


def describe(resolved: ResolvedSettings) -> str:
    """Every setting with its value and where it comes from, as TOML that `--config` takes."""
    lines = [
        (f"{key} = {json.dumps('' if value is None else value)}", resolved.sources[key])
        for key, value in resolved.settings.model_dump(mode="json").items()
    ]
    width = max(len(line) for line, _ in lines)
    return "\n".join(f"{line:<{width}}  # {source}" for line, source in lines) + "\n"


def _from_file(path: Path) -> dict[str, tuple[str, Any]]:
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{path}: not TOML: {error}") from error
    return {key: (str(path), value) for key, value in document.items()}


def _from_environment(environment: Mapping[str, str]) -> dict[str, tuple[str, Any]]:
    """Variables of ours. Strangers under the same prefix are let be, unless they look like a slip of one."""
    found = {}
    for variable, value in environment.items():
        name = variable.removeprefix(ENVIRONMENT_PREFIX)
        if name == variable or variable == CONFIG_VARIABLE or variable in _CLIENTS:
            continue
        if _SERVICE_LINK.fullmatch(name):
            continue
        key = name.lower()
        if key in Settings.model_fields or difflib.get_close_matches(key, Settings.model_fields, cutoff=0.75):
            found[key] = (variable, value)
    return found


def _nearest(key: str, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(key, names, n=1, cutoff=0.5)
    return f"did you mean {near[0]!r}?" if near else f"there are {', '.join(names)}"


def _reasons(error: ValidationError, values: Mapping[str, Any], sources: Mapping[str, str]) -> list[str]:
    return [
        f"{sources[key]}: {key} = {values[key]!r}: {detail['msg']}"
        for detail in error.errors()
        for key in [str(detail["loc"][0])]
    ]
