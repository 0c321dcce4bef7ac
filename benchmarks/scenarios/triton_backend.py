"""Diffusion through the gateway over a real Triton, against the same gateway on the embedded engine."""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack, ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.contenders import by_itself
from benchmarks.figures import figures
from benchmarks.load import closed_loop
from benchmarks.mixes import Mix, mixed
from benchmarks.peers.atelier import Atelier, batch_rows, serve
from benchmarks.plan import Plan
from benchmarks.scenarios import Tell
from benchmarks.summary import take_turns
from benchmarks.triton.server import lay_out, triton_server
from serving.catalog import build, scan


async def triton_backend(plan: Plan, tell: Tell) -> dict[str, Any]:
    """Figures by model; one server of each kind at a time has something to do."""
    there = build(scan(plan.repository)).models
    results = {}
    for model in plan.diffusion:
        if model not in there or not there[model].denoiser:
            continue
        public = there[model]
        assert public.denoiser is not None, "models without a denoiser are left out"
        mix = mixed(model, classes=len(public.denoiser.class_labels))
        graphs = [manifest.graph for manifest in public.graphs.values()]
        with ExitStack() as servers:
            folder = Path(servers.enter_context(tempfile.TemporaryDirectory())) / "repository"
            lay_out(plan.repository, folder, instances=plan.cores, graphs=graphs)
            backends = [f"--backend-directory={plan.triton_backends}"] if plan.triton_backends else []
            triton = servers.enter_context(triton_server(folder, flags=backends))
            as_published = ["--rewrite-graphs", "false"]  # Triton knows nothing else
            over = ["--backend", "triton", "--triton-url", triton.grpc_address]
            async with AsyncExitStack() as stack:
                gateways = {
                    "embedded": await stack.enter_async_context(
                        serve(folder, "--instances", str(plan.cores), "--threads", "1", *as_published)
                    ),
                    "over Triton": await stack.enter_async_context(serve(folder, *over)),
                    "over Triton, shared memory": await stack.enter_async_context(
                        serve(folder, *over, "--triton-shared-memory", "system")
                    ),
                }
                contenders = {
                    name: partial(by_itself, each, gateways.values(), partial(_load, plan, mix, each))
                    for name, each in gateways.items()
                }
                runs = await take_turns(plan.runs, contenders, partial(_tell, tell, model))
                graph = public.denoiser.graph
                formed = {name: batch_rows(each.metrics(), graph) for name, each in gateways.items()}
        results[model] = {"clients": plan.clients, "runs": runs, "batch_rows": formed}
    return results


async def _load(plan: Plan, mix: Mix, gateway: Atelier) -> dict[str, Any]:
    load = await closed_loop(
        gateway.send, mix, clients=plan.clients, warm_up=plan.warm_up, seconds=plan.seconds
    )
    return figures(load)


def _tell(tell: Tell, model: str, words: str) -> None:
    tell(f"{model}, {words}")
