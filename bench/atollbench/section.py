"""What programs have in common that measure one section of a page."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from atollbench import report
from atollbench.boxes import CommandError

_PROJECT = Path(__file__).resolve().parents[2]
_PAGE = _PROJECT / "docs" / "benchmarks.md"


def add_options(parse: argparse.ArgumentParser) -> None:
    """Those that all of them have."""
    parse.add_argument("--atoll-programs", type=Path, default=_PROJECT / ".venv/bin", metavar="DIR", help="atoll and atolld")
    parse.add_argument("--state", type=Path, default=Path("/var/tmp"), metavar="DIR", help="file system to run on")
    parse.add_argument("--cache", type=Path, default=Path.home() / ".cache/atoll-bench", metavar="DIR", help="kept images")
    parse.add_argument("--output", type=Path, metavar="FILE", help=f"page whose section to replace, such as {_PAGE.name}")


def main(parser: argparse.ArgumentParser, run: Callable[[argparse.Namespace], str], argv: Sequence[str] | None) -> int:
    """Print what `run` measures, and put it into the page of `--output`; the exit code."""
    options = parser.parse_args(argv)
    if os.geteuid() != 0:
        print("bench: must be run as root", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job inherits it ignored
        signal.signal(number, _as_interrupt)
    try:
        text = run(options)
    except CommandError as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    print(text)
    if options.output:
        options.output.write_text(report.with_section(options.output.read_text(), text))
    return 0


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
