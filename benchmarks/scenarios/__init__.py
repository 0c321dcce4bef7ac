"""What is measured: one scenario a file, each a coroutine from a plan to figures that JSON can hold."""

from __future__ import annotations

from collections.abc import Callable

SCENARIOS: dict[str, str] = {
    "overhead": "benchmarks.scenarios.overhead:overhead",
    "step_loop": "benchmarks.scenarios.step_loop:step_loop",
    "saturated": "benchmarks.scenarios.saturated:saturated",
    "one_pass": "benchmarks.scenarios.one_pass:one_pass",
    "heavy_pass": "benchmarks.scenarios.heavy_pass:heavy_pass",
    "open_inference": "benchmarks.scenarios.open_inference:open_inference",
    "probes": "benchmarks.scenarios.probes:probes",
    "overload": "benchmarks.scenarios.overload:overload",
    "triton_backend": "benchmarks.scenarios.triton_backend:triton_backend",
    "watching": "benchmarks.scenarios.watching:watching",
}
"""Scenarios by name, as import strings that are resolved on use."""

Tell = Callable[[str], None]
"""Says what is going on."""
