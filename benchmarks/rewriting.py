"""`python -m benchmarks.rewriting`: calls of graphs as published, and as the engine rewrites them.

One thread, the two in turns; a ratio is the median of the ratios within a round.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from time import perf_counter
from typing import Any

from rich.console import Console

from benchmarks.raw import inputs, session
from benchmarks.summary import middle
from serving.backends.rewriting import rewritten
from serving.catalog import MODEL_FILE, scan
from serving.manifest import Manifest

_ROWS = (1, 4, 16, 32)


def main() -> int:
    """Measure every graph that there is something to rewrite in."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--rounds", type=int, default=40)
    options = parser.parse_args()
    console = Console()
    for manifest in scan(options.repository).manifests:
        model = options.repository / manifest.graph / str(max(manifest.versions)) / MODEL_FILE
        content = model.read_bytes()
        if rewritten(content) == content:
            continue
        both = [session(options.repository, manifest, 1, rewrite=rewrite) for rewrite in (False, True)]
        for rows in (n for n in _ROWS if n <= manifest.max_batch_size):
            published, shorter, ratio = _compare(both, manifest, rows, options.rounds)
            console.print(
                f"{manifest.graph}, {rows} rows: {1000 * published:.2f} ms as published, "
                f"{1000 * shorter:.2f} ms rewritten, {ratio:.2f} times as fast",
                soft_wrap=True,
            )
    return 0


def _compare(sessions: list[Any], manifest: Manifest, rows: int, rounds: int) -> tuple[float, float, float]:
    """Median seconds of a call of each, and of the ratios."""
    feed = inputs(manifest, rows)
    times: list[list[float]] = [[], []]
    for run in range(rounds + 1):
        for which, opened in enumerate(sessions):
            began = perf_counter()
            opened.run(None, feed)
            if run:  # the first calls allocate
                times[which].append(perf_counter() - began)
    return middle(times[0]), middle(times[1]), middle([a / b for a, b in zip(*times, strict=True)])


if __name__ == "__main__":
    sys.exit(main())
