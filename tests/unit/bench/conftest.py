"""Puts the benchmark's package, which is no part of the installed project, within reach of its tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "bench"))
