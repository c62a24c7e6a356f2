"""The command line of the benchmark: chooses systems and rows, runs them, prints and writes the report."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from atollbench import images, machine, report, scale, systems
from atollbench.boxes import Box, CommandError
from atollbench.measure import Plan, Session, say
from atollbench.report import Column, Document
from atollbench.stats import Results
from atollbench.systems import System
from atollbench.targets import ROWS, Row, Stage, scale_rows
from atollbench.wire import WireError

_PROJECT = Path(__file__).resolve().parents[2]
_PAGE = _PROJECT / "docs" / "benchmarks.md"
_SUBJECT = "atoll"
_ALIAS = "bench"
_BRIDGE_PORTS = 1023  # the kernel's BR_MAX_PORTS, less the one it keeps


class UsageError(Exception):
    """The command line asks for what there is not."""


def parser() -> argparse.ArgumentParser:
    parse = argparse.ArgumentParser(prog="bench/run", description="Compare Atoll, LXD and Incus on this machine.")
    parse.add_argument("--only", metavar="SYSTEM,…", help="of atoll, lxd, incus (all)")
    parse.add_argument("--rows", metavar="ROW,…", help="keys of rows to measure, or none (all)")
    parse.add_argument("--repeat", type=_positive, metavar="N", help="repetitions of each step (7)")
    parse.add_argument("--instances", type=_positive, metavar="N", help="size of the fleet (106)")
    parse.add_argument("--running", type=_positive, metavar="N", help="how many of the fleet run (6)")
    parse.add_argument("--quick", action="store_true", help="busybox, 2 repetitions, a fleet of 12 with 2 running")
    parse.add_argument("--scale", type=_positive, metavar="N", help="then bring up N busybox containers on Atoll alone")
    parse.add_argument("--scale-network", action="store_true", help="give those an interface each")
    parse.add_argument("--atoll-programs", type=Path, metavar="DIR", help="where atoll and atolld are (the checkout's)")
    parse.add_argument("--backend", choices=("overlay", "btrfs", "dir"), default="overlay", help="Atoll's storage (overlay)")
    parse.add_argument("--state", type=Path, default=Path("/var/tmp"), metavar="DIR", help="file system to run on")
    parse.add_argument("--cache", type=Path, default=_default_cache(), metavar="DIR", help="where images are kept")
    parse.add_argument("--output", type=Path, metavar="FILE", help="page to write (docs/benchmarks.md for a whole run)")
    parse.add_argument("--json", type=Path, metavar="FILE", help="also write all samples there")
    return parse


def main(argv: Sequence[str] | None = None) -> int:
    options = parser().parse_args(argv)
    for number in (signal.SIGINT, signal.SIGTERM):  # SIGINT too: a shell's background job inherits it ignored
        signal.signal(number, _as_interrupt)
    try:
        document = run(options)
    except (UsageError, CommandError, WireError) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("bench: interrupted", file=sys.stderr)
        return 130
    _publish(document, options)
    return 0


def run(options: argparse.Namespace) -> Document:
    """Measures all that `options` ask for; on return nothing of it runs any more."""
    if os.geteuid() != 0:
        raise UsageError("must be run as root")
    rows = choose_rows(options.rows)
    chosen = choose_systems(options.only, options.atoll_programs, backend=options.backend)
    if options.scale and all(system.key != _SUBJECT for system in chosen):
        raise UsageError("--scale needs Atoll")
    if options.scale and options.scale_network and options.scale > _BRIDGE_PORTS:
        raise UsageError(f"a bridge carries {_BRIDGE_PORTS} containers at most")
    plan = _plan(options, rows)
    results = Results()
    with machine.raised_limits(), _directory(options.state) as root:
        facts = machine.facts(root, _versions(chosen))
        if rows:
            _compare(chosen, plan, root, options.cache, results)
        if options.scale:
            _scale(next(system for system in chosen if system.key == _SUBJECT), options, root, results)
    return Document(
        subject=_SUBJECT,
        columns=[Column(system.key, system.title) for system in chosen],
        rows=[*rows, *(scale_rows(options.scale) if options.scale else ())],
        results=results,
        facts={**facts, "Image": "busybox" if options.quick else "Debian 12 with systemd"},
        sizes={"total": plan.total, "running": plan.running, "scale": options.scale or 0},
        command=shlex.join(["bench/run", *sys.argv[1:]]),
    )


def choose_rows(wanted: str | None) -> tuple[Row, ...]:
    """The rows named in `wanted`, in the table's order; all when it is None, none for "none"."""
    if wanted is None:
        return ROWS
    keys = set() if wanted == "none" else set(wanted.split(","))
    if unknown := keys - {row.key for row in ROWS}:
        known = ", ".join(row.key for row in ROWS)
        raise UsageError(f"no row {', '.join(sorted(unknown))}; there are: {known}")
    return tuple(row for row in ROWS if row.key in keys)


def choose_systems(wanted: str | None, programs: Path | None, *, backend: str = "overlay") -> tuple[System, ...]:
    """The systems to compare, peers first. One that is not installed is left out, unless it was asked for by name."""
    venv = _PROJECT / ".venv" / "bin"
    found = programs or (venv if (venv / "atolld").exists() else None)
    known = {system.key: system for system in (systems.LXD, systems.INCUS, systems.atoll(found, backend=backend))}
    keys = set(known) if wanted is None else set(wanted.split(","))
    if unknown := keys - set(known):
        raise UsageError(f"no system {', '.join(sorted(unknown))}; there are: {', '.join(known)}")
    chosen = [system for key, system in known.items() if key in keys]
    missing = [system for system in chosen if not _is_installed(system)]
    if missing and (wanted is not None or missing == chosen):
        raise UsageError(f"not installed: {_titles(missing)} (bench/install-peers installs LXD and Incus)")
    if missing:
        say(f"left out, not installed: {_titles(missing)}")
    return tuple(system for system in chosen if system not in missing)


def _titles(chosen: Sequence[System]) -> str:
    return ", ".join(system.title for system in chosen)


def _is_installed(system: System) -> bool:
    path = ":".join(system.search_path)
    return all(shutil.which(program, path=path) for program in (system.client, system.daemon))


def _plan(options: argparse.Namespace, rows: Sequence[Row]) -> Plan:
    repeat, total, running = (2, 12, 2) if options.quick else (7, 106, 6)
    plan = Plan(
        rows=rows,
        repeat=options.repeat or repeat,
        total=options.instances or total,
        running=options.running or running,
        image=_ALIAS,
        boots=not options.quick,
    )
    if plan.running > plan.total:
        raise UsageError(f"{plan.running} of {plan.total} instances cannot run")
    return plan


def _compare(chosen: Sequence[System], plan: Plan, root: Path, cache: Path, results: Results) -> None:
    archive = images.debian(cache) if plan.boots else images.busybox(cache)
    with _uninterrupted_end() as stack:
        boxes = [_started(system, root, stack) for system in chosen]
        session = Session(boxes, plan, results)
        if plan.wants(Stage.IDLE):
            session.idle()
        if plan.wants(Stage.LIFECYCLE) or plan.wants(Stage.FLEET):
            for box in boxes:
                box.run(box.system.import_image(archive, _ALIAS))
            session.warm_up()
        if plan.wants(Stage.LIFECYCLE):
            session.lifecycle()
        if plan.wants(Stage.FLEET):
            session.fleet()


def _scale(system: System, options: argparse.Namespace, root: Path, results: Results) -> None:
    archive = images.busybox(options.cache)
    with _uninterrupted_end() as stack:
        box = _started(system, root, stack)
        box.run(system.import_image(archive, _ALIAS))
        try:
            scale.measure(box, results, count=options.scale, image=_ALIAS, networked=options.scale_network)
        except (CommandError, WireError) as error:
            results.fail("scale-reach", system.key, str(error))  # the comparison before it is still worth showing


def _started(system: System, root: Path, stack: contextlib.ExitStack) -> Box:
    say(f"{system.title}: start")
    box = Box(system, root / system.key, prefix=f"ab{os.getpid()}-{system.key}")
    stack.callback(box.stop)
    box.start()
    return box


@contextlib.contextmanager
def _uninterrupted_end() -> Iterator[contextlib.ExitStack]:
    """A stack whose end a second Ctrl-C does not cut short."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack
        finally:
            handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
            try:
                stack.close()
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)


@contextlib.contextmanager
def _directory(parent: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="atoll-bench-", dir=parent) as name:
        # the ids of containers must be able to pass
        os.chmod(name, 0o711)
        yield Path(name)


def _versions(chosen: Sequence[System]) -> dict[str, str]:
    packages = machine.package_versions([package for system in chosen for package in system.packages] + ["liblxc1", "lxcfs"])
    own = {}
    for system in chosen:
        if not system.packages:
            with tempfile.TemporaryDirectory() as name:
                box = Box(system, Path(name), prefix="")
                own[system.title] = box.run([system.client, "--version"]).strip()
    return own | packages


def _publish(document: Document, options: argparse.Namespace) -> None:
    """Prints the table; writes the page, by default only for a whole run, which alone is worth keeping."""
    print(report.comparison(document))
    print(f"\n{report.tally(document)}")
    for line in report.failures(document):
        print(f"not measured: {line}")
    whole = not options.quick and options.rows is None and options.backend == "overlay" and len(document.columns) == 3
    if page := options.output or (_PAGE if whole else None):
        page.parent.mkdir(parents=True, exist_ok=True)
        section = report.section_of(page.read_text()) if page.exists() else ""
        page.write_text(report.with_section(report.markdown(document), section) if section else report.markdown(document))
        say(f"wrote {page}")
    if options.json:
        options.json.write_text(json.dumps({"facts": document.facts, "samples": document.results.samples}, indent=1))


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "atoll-bench"


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _as_interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt
