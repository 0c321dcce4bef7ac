"""Servers side by side: each peer with the best of its settings."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

from benchmarks.load import closed_loop
from benchmarks.mixes import Mix
from benchmarks.peers import PEERS, Peer, Server, Setting
from benchmarks.plan import Plan
from benchmarks.processes import ServerError
from benchmarks.scenarios import Tell
from serving.resolve import resolve

_TRIAL_SECONDS = 4.0


async def open_peers(
    stack: AsyncExitStack,
    plan: Plan,
    model: str,
    mix: Mix,
    clients: int,
    known: dict[str, Setting],
    tell: Tell,
) -> tuple[dict[str, Server], dict[str, Any]]:
    """Every peer of the plan with the model, at the setting that gave most images a second in a trial.

    Settings found are put into `known`, and those that are there need no trial. Returns the running servers,
    and what each setting gave. A peer that does not start is left out and said.
    """
    servers: dict[str, Server] = {}
    trials: dict[str, Any] = {}
    for name in plan.peers:
        peer: Peer = resolve(PEERS, name, "peer")
        try:
            tried = {}
            if name not in known:
                for setting in peer.settings:
                    tried[setting] = await _trial(peer, plan, model, mix, clients, setting)
                known[name] = max(tried, key=tried.__getitem__)
            servers[name] = await stack.enter_async_context(peer.serve(plan.repository, model, known[name]))
        except (ServerError, OSError) as error:
            tell(f"{name} is left out: {error}")
            trials[name] = {"error": str(error)}
        else:
            trials[name] = {"best": str(known[name]), "images": _named(tried)}
            rates = ", ".join(f"{rate:.1f}" for rate in tried.values())
            tell(f"{name}: {known[name]} ({rates or 'known'} images/s)")
    return servers, trials


async def _trial(peer: Peer, plan: Plan, model: str, mix: Mix, clients: int, setting: Setting) -> float:
    seconds = min(_TRIAL_SECONDS, plan.seconds)
    async with peer.serve(plan.repository, model, setting) as server:
        load = await closed_loop(server.send, mix, clients=clients, warm_up=seconds / 3, seconds=seconds)
    return load.credit(lambda ask: ask.count)


def _named(tried: Mapping[Setting, float]) -> dict[str, float]:
    return {str(setting): rate for setting, rate in tried.items()}
