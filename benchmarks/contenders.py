"""Servers side by side: each peer with the best of its settings, and one of them at a time at work."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import AbstractContextManager, AsyncExitStack
from typing import Any, TypeVar

from benchmarks.load import closed_loop
from benchmarks.mixes import Mix
from benchmarks.peers import PEERS, Peer, Server, Setting
from benchmarks.plan import Plan
from benchmarks.processes import ServerError, stopped
from benchmarks.scenarios import Tell
from serving.resolve import resolve

Result = TypeVar("Result")

_TRIAL_SECONDS = 4.0


def only(server: Server | None, everyone: Collection[Server]) -> AbstractContextManager[None]:
    """Stops all others while this one is measured, or something that is no server.

    Some compute though nobody asks them anything: LitServe's batcher polls, with two workers a quarter of a
    core on the machine of the docs, and Atelier measures its batches when it has nothing else to do.
    """
    mine = None if server is None else server.process_id
    return stopped({each.process_id for each in everyone if each.process_id} - {mine})


async def by_itself(
    server: Server | None, everyone: Collection[Server], measure: Callable[[], Awaitable[Result]]
) -> Result:
    """What is measured of a server while the others are stopped."""
    with only(server, everyone):
        return await measure()


async def open_peers(
    stack: AsyncExitStack,
    plan: Plan,
    model: str,
    mix: Mix,
    clients: int,
    known: dict[str, Setting],
    beside: Collection[Server],
    tell: Tell,
) -> tuple[dict[str, Server], dict[str, Any]]:
    """Every peer of the plan with the model, at the setting that gave most images a second in a trial.

    Settings found are put into `known`, and those that are there need no trial. Servers that run `beside` are
    stopped for the trials. Returns the running servers, and what each setting gave. A peer that does not
    start is left out and said.
    """
    servers: dict[str, Server] = {}
    trials: dict[str, Any] = {}
    for name in plan.peers:
        peer: Peer = resolve(PEERS, name, "peer")
        try:
            tried = {}
            if name not in known:
                with only(None, [*beside, *servers.values()]):
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
