"""Puts the helpers of these tests, and the tiny graphs of the gateway's, on the path."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "serving"))
