"""`top`: what running instances use, again and again."""

from __future__ import annotations

import select
import sys
import time

from atoll.cli import instance_filter, output, terminal, usage
from atoll.cli.errors import CommandError
from atoll.client.address import url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from atoll.cli.session import Call
    from atoll.client.server import Server

SHORTEST_SECONDS = 0.2
KEYS = {"c": "cpu", "m": "memory", "d": "disk", "n": "network", "p": "processes", "a": "name"}
QUIT = frozenset("q\x03\x04")
_CLEAR, _REST_OF_LINE, _REST_OF_SCREEN = "\x1b[H", "\x1b[K", "\x1b[J"
_ENTER, _LEAVE = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


def run(call: Call) -> None:
    """Show a table that renews itself; on anything but a terminal, tables one after the other."""
    flags = call.flags
    order = flags.text("sort")
    if order not in usage.ORDERS:
        raise CommandError(f"Unknown order {order!r}: choose one of {', '.join(usage.ORDERS)}")
    kind = output.check_format(flags.text("format"))
    server, filters = call.split_remote(call.arguments)
    source = Source(server, filters, everywhere=flags.on("all-projects"))
    pause = _seconds(flags.text("interval"))
    rounds = flags.number("iterations") or 0
    if kind == "table" and not flags.given("format") and terminal.is_terminal(0) and terminal.is_terminal(1):
        _interactive(source, order, pause, rounds)
    else:
        _batch(source, order, kind, pause, rounds or 1)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not SHORTEST_SECONDS <= seconds <= 3600:
        raise CommandError(f"The interval must be between {SHORTEST_SECONDS} and 3600 seconds")
    return seconds


class Source:
    """Where the figures come from."""

    def __init__(self, server: Server, filters: list[str], *, everywhere: bool) -> None:
        self._server = server
        self._filters = filters
        self._path = url("instances", recursion="2", all_projects="true" if everywhere else "")
        self._meter = usage.Meter()
        self.everywhere = everywhere

    def read(self) -> list[usage.Usage]:
        """By one request; the server is taken to have read its figures halfway through it."""
        begun = time.monotonic()
        instances = self._server.get(self._path) or []
        moment = (begun + time.monotonic()) / 2
        return self._meter.read([each for each in instances if instance_filter.matches(each, self._filters)], moment)

    def table(self, usages: list[usage.Usage]) -> tuple[list[str], list[list[str]]]:
        """Header and rows."""
        header = [name for name, _ in usage.COLUMNS]
        rows = [[text(each) for _, text in usage.COLUMNS] for each in usages]
        if self.everywhere:
            header = ["PROJECT", *header]
            rows = [[each.project, *row] for each, row in zip(usages, rows, strict=True)]
        return header, rows


def _batch(source: Source, order: str, kind: str, pause: float, rounds: int) -> None:
    """Tables for programs and files; each tells the rates of the pause before it."""
    source.read()
    for _ in range(rounds):
        time.sleep(pause)
        usages = usage.ordered(source.read(), order)
        header, rows = source.table(usages)
        raw = [{name: getattr(each, name) for name in each.__slots__} for each in usages]
        sys.stdout.write(output.render(kind, header, rows, raw))
        sys.stdout.flush()


def _interactive(source: Source, order: str, pause: float, rounds: int) -> None:
    """A full screen until `q`; the keys of KEYS choose the order."""
    from atoll.cli.raw_terminal import raw

    shown = 0
    sys.stdout.write(_ENTER)
    try:
        with raw(0):
            usages = source.read()
            while True:
                _draw(source, usage.ordered(usages, order), order)
                key = _key(pause if shown else min(pause, 0.5))  # the first rates come soon
                if key in QUIT:
                    return
                if key in KEYS:
                    order = KEYS[key]
                    continue
                usages = source.read()
                shown += 1
                if rounds and shown >= rounds:
                    return
    finally:
        sys.stdout.write(_LEAVE)
        sys.stdout.flush()


def _key(pause: float) -> str:
    """The key that is pressed within `pause` seconds, or an empty text."""
    import os

    if not select.select([0], [], [], pause)[0]:
        return ""
    return os.read(0, 1).decode("latin-1") or "q"


def _draw(source: Source, usages: list[usage.Usage], order: str) -> None:
    import os

    width, height = os.get_terminal_size(1)
    keys = " ".join(f"{key}:{name}" for key, name in KEYS.items())
    lines = [f"{usage.summary(usages)}   (by {order}; {keys} q:quit)", ""]
    lines += output.compact(*source.table(usages)).splitlines()
    shown = [line[:width] + _REST_OF_LINE for line in lines[:height]]
    sys.stdout.write(_CLEAR + "\r\n".join(shown) + _REST_OF_SCREEN)
    sys.stdout.flush()
