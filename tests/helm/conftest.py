"""Puts the helpers of these tests on the path, and those of the gateway's and of Triton's."""

import sys
from pathlib import Path

sys.path[:0] = [
    str(Path(__file__).parent),
    *(str(Path(__file__).parents[1] / n) for n in ("serving", "triton")),
]
