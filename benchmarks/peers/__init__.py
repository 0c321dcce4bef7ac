"""Servers under load: Atelier and its peers, one file each, all behind one small protocol.

A peer serves the same requests in the way that is natural to it: a request's whole sampling loop runs
inside its model code, with the very samplers, noise and session options that Atelier has, and its own
batcher joins whole requests, of which those with equal parameters are sampled together.
"""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from benchmarks.mixes import Ask

PEERS: dict[str, str] = {
    "mlserver": "benchmarks.peers.mlserver:MLSERVER",
    "triton": "benchmarks.peers.triton:TRITON",
    "litserve": "benchmarks.peers.litserve:LITSERVE",
    "bentoml": "benchmarks.peers.bentoml:BENTOML",
}
"""Peers by name, as import strings that are resolved on use."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """How a peer is set up."""

    workers: int
    """Processes, or instances, that run the model."""
    threads: int = 1
    """Threads within a call of onnxruntime."""
    batch: int = 1
    """Most images that its batcher joins; 1 turns the batcher off."""
    wait: float = 0.0
    """Seconds that its batcher waits for more."""

    def __str__(self) -> str:
        batching = (
            f"batches to {self.batch}, waits {1000 * self.wait:g} ms" if self.batch > 1 else "no batching"
        )
        return f"{self.workers} × {self.threads} threads, {batching}"


class Server(Protocol):
    """A server that is running."""

    @property
    def process_id(self) -> int | None:
        """Leads the group of its processes, where those compute though nobody asks them anything."""

    async def send(self, ask: Ask) -> str:
        """Sends a request and waits for its end: "ok", "refused", "late" or "failed"."""


class Peer(Protocol):
    """A kind of server."""

    @property
    def settings(self) -> tuple[Setting, ...]:
        """Settings worth a try; the benchmark takes the one with the greatest throughput."""

    def serve(self, repository: Path, model: str, setting: Setting) -> AbstractAsyncContextManager[Server]:
        """The server with one model, until the block is left. Raises `ServerError`."""
