"""`atelier bench`: measures the gateway, the raw runtime and the peers, and writes tables and plots."""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.peers import PEERS
from benchmarks.peers.environments import SOURCE_TREE
from benchmarks.plan import Plan
from benchmarks.report import show
from benchmarks.scenarios import SCENARIOS
from serving.process.processors import processors
from serving.resolve import resolve

_RESULTS = SOURCE_TREE / ".cache" / "bench" / "results.json"
_DOCS = SOURCE_TREE / "docs"


def main(arguments: list[str]) -> int:
    """Run the subcommand and return its exit status."""
    given = _parser().parse_args(arguments)
    console = Console(stderr=True)
    results = json.loads(given.results.read_text("utf-8")) if given.results.is_file() else {}
    if not given.report:
        plan = _plan(given)
        if not plan.repository.is_dir():
            print(
                f"atelier bench: no model repository at {plan.repository}: name one with --repository",
                file=sys.stderr,
            )
            return 1
        try:
            asyncio.run(_measure(plan, _command(arguments), given.results, results, console))
        except (KeyboardInterrupt, asyncio.CancelledError):
            return 130
    show({name: each["figures"] for name, each in results.items()}, Console())
    if given.docs:
        from benchmarks.docs import write  # matplotlib takes its time

        for path in write(results, _DOCS):
            console.print(f"wrote {path}")
    return 0


async def _measure(plan: Plan, command: str, file: Path, results: dict[str, Any], console: Console) -> None:
    """Runs the plan's scenarios; each is saved as soon as it is done."""
    # Like Ctrl-C: the servers are ended on the way out.
    task = asyncio.current_task()
    assert task is not None, "runs in a task"
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    file.parent.mkdir(parents=True, exist_ok=True)
    for name in plan.scenarios:
        with console.status(name) as status:

            def tell(words: str) -> None:
                console.log(words)
                status.update(words)

            figures = await resolve(SCENARIOS, name, "scenario")(plan, tell)
        results[name] = {
            "command": command,
            "measured": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": _machine(plan.cores),
            "runs": plan.runs,
            "figures": figures,
        }
        file.write_text(json.dumps(results, indent=1), "utf-8")


def _plan(given: argparse.Namespace) -> Plan:
    quick = given.quick
    peers = () if quick and not given.peers else _chosen(given.peers, tuple(PEERS), "--peers")
    return Plan(
        repository=given.repository,
        peers=peers,
        scenarios=_chosen(given.scenarios, tuple(SCENARIOS), "--scenarios"),
        runs=given.runs or (1 if quick else 5),
        seconds=given.seconds or (2.0 if quick else 8.0),
        warm_up=0.5 if quick else 2.0,
        cores=processors(),
        diffusion=tuple(given.diffusion.split(",")),
        one_pass=tuple(given.one_pass.split(",")),
        triton_backends=given.triton_backends,
    )


def _chosen(words: str | None, known: tuple[str, ...], flag: str) -> tuple[str, ...]:
    if words is None:
        return known
    chosen = tuple(word for word in words.split(",") if word and word != "none")
    for word in chosen:
        if word not in known:
            raise SystemExit(f"atelier bench: {flag} {word!r} is not one of {', '.join(known)}, none")
    return chosen


def _command(arguments: list[str]) -> str:
    """What makes the figures again: the flags that choose what is measured, without names of places."""
    kept: list[str] = []
    words = iter(arguments)
    for word in words:
        if word in ("--results", "--repository"):
            next(words, None)
        elif word.partition("=")[0] == "--triton-backends":
            kept += ["--triton-backends", "DIR"]
            if "=" not in word:
                next(words, None)
        elif not word.startswith(("--results=", "--repository=")) and word != "--docs":
            kept.append(word)
    return " ".join(["atelier bench", *kept])


def _machine(cores: int) -> str:
    name = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text("utf-8").splitlines():
        if line.startswith("model name"):
            name = line.partition(":")[2].strip()
            break
    return f"{cores} cores, {name}, Python {platform.python_version()}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier bench",
        description="Measure the gateway against the raw runtime and other servers. Needs the source tree; "
        "peers are installed into .cache/bench on first use.",
        allow_abbrev=False,
    )
    parser.add_argument("--repository", type=Path, default=SOURCE_TREE / "model_repository", metavar="DIR")
    parser.add_argument(
        "--quick", action="store_true", help="everything small and once, without peers: about four minutes"
    )
    parser.add_argument(
        "--peers", metavar="NAMES", help=f"of {','.join(PEERS)}, or none (default: all; with --quick none)"
    )
    parser.add_argument("--scenarios", metavar="NAMES", help=f"of {','.join(SCENARIOS)} (default: all)")
    parser.add_argument("--runs", type=int, help="alternating runs, of which the median counts (default: 5)")
    parser.add_argument("--seconds", type=float, help="length of a run (default: 8)")
    parser.add_argument(
        "--diffusion",
        default="shapes_unet,digits_unet",
        metavar="MODELS",
        help="diffusion models; probes and overload load the first (default: %(default)s)",
    )
    parser.add_argument(
        "--one-pass",
        default="digits_gan,digits_vae",
        metavar="MODELS",
        help="models of one pass; the first that is there (default: %(default)s)",
    )
    parser.add_argument(
        "--triton-backends",
        type=Path,
        metavar="DIR",
        help="a folder of Triton's backends with its own onnxruntime in it, for the gateway over Triton "
        "(default: the Python backend that the tests use)",
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=_RESULTS,
        metavar="FILE",
        help="raw figures as JSON; what is not measured again is kept",
    )
    parser.add_argument("--report", action="store_true", help="measure nothing, show what FILE holds")
    parser.add_argument("--docs", action="store_true", help="write docs/benchmarks.md and its plots")
    return parser
