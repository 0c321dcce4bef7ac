from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from training.coerce import ConfigError, Text, build, coerce


@pytest.mark.parametrize(
    ("annotation", "text", "value"),
    [
        (int, "12", 12),
        (int, "1e4", 10_000),
        (float, "1e-3", 1e-3),
        (bool, "false", False),
        (str, "none", "none"),
        (float | None, "none", None),
        (float | None, "2", 2.0),
        (tuple[int, ...], "1,2,3", (1, 2, 3)),
        (tuple[int, ...], "[8, 16]", (8, 16)),
        (tuple[int, ...], "[]", ()),
        (tuple[float, float], "0.5,0.9", (0.5, 0.9)),
        (tuple[str, ...], '["flip", "shift"]', ("flip", "shift")),
        (Literal["edm", "flow"], "flow", "flow"),
        (Any, "64", 64),
        (Any, "plain", "plain"),
        (Mapping[str, Any], {"size": Text("64")}, {"size": 64}),
    ],
)
def test_a_text_from_the_command_line_becomes_what_the_annotation_says(annotation, text, value):
    result = coerce(Text(text) if isinstance(text, str) else text, annotation, "key")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("annotation", "value", "allowed"),
    [
        (int, Text("many"), "an integer"),
        (int, 2.5, "an integer"),
        (int, True, "an integer"),
        (int, "12", "an integer"),
        (float, "fast", "a number"),
        (bool, Text("perhaps"), "true or false"),
        (bool, 1, "true or false"),
        (str, 3, "a text"),
        (Literal["edm", "flow"], Text("vp"), "one of edm, flow"),
        (tuple[int, ...], [1, "two"], "a list, each item an integer"),
        (tuple[float, float], [0.5], "a list of 2: a number, a number"),
        (float | None, Text("much"), "a number or none"),
    ],
)
def test_a_value_of_the_wrong_type_is_named_with_what_is_allowed(annotation, value, allowed):
    with pytest.raises(ConfigError) as error:
        coerce(value, annotation, "diffusion.lr")
    assert str(error.value).startswith(f"diffusion.lr = {value!r} is not possible")
    assert str(error.value).endswith(f"it must be {allowed}")


def test_what_a_dataclass_refuses_is_a_configuration_error_that_names_the_table():
    @dataclass(frozen=True, kw_only=True)
    class Settings:
        depth: int = 1

        def __post_init__(self) -> None:
            if self.depth < 1:
                raise ValueError("depth must be at least 1")

    assert build(Settings, {"depth": 3}).depth == 3
    with pytest.raises(ConfigError, match=r"^gan: depth must be at least 1$"):
        build(Settings, {"depth": 0}, "gan.")
