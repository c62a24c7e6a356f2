"""The measurements. Each step is done on all systems in turn before the next step: a disturbance falls on all alike."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from atollbench import processes
from atollbench.boxes import Box, CommandError
from atollbench.stats import Results
from atollbench.targets import Row, Stage
from atollbench.wire import Connection, WireError

_EXECS = 3
_SETTLE = 3.0
# requests of each kind in one repetition: many of the quick ones, whose spread is wide
_REQUESTS = {"recursion2": 5, "recursion1": 25, "instance": 100, "state": 25, "server": 200}


@dataclass(frozen=True)
class Plan:
    """What to measure and how often. `running` of the `total` instances of the fleet run; `image` is an alias."""

    rows: Sequence[Row]
    repeat: int
    total: int
    running: int
    image: str
    boots: bool  # the image has an init whose end of boot can be, and must be, waited for

    def wants(self, stage: Stage) -> bool:
        return any(row.stage is stage for row in self.rows)

    def wants_row(self, *keys: str) -> bool:
        return any(row.key in keys for row in self.rows)


class Session:
    """One run over the started `boxes`; all that is found out goes to `results`."""

    def __init__(self, boxes: Sequence[Box], plan: Plan, results: Results) -> None:
        self._boxes = boxes
        self._plan = plan
        self._results = results

    def idle(self) -> None:
        """The daemons just set up, with neither image nor instance."""
        say("idle daemons")
        time.sleep(_SETTLE)
        for box in self._boxes:
            self._results.add("rss-idle", box.system.key, processes.memory(box.daemon_processes()).rss)
        for _ in range(self._plan.repeat):
            for box in self._boxes:
                self._timed(box, "help", box.system.show_help())
                self._timed(box, "list-none", box.system.list_all())

    def warm_up(self) -> None:
        """Launches one instance on each system, so that the image is unpacked wherever the system keeps it unpacked."""
        for box in self._boxes:
            say(f"{box.system.title}: first launch")
            name = f"{box.prefix}-warm"
            box.run(box.system.launch(self._plan.image, name))
            self._await_boot(box, name)
            box.run(box.system.delete_running(name))

    def lifecycle(self) -> None:
        for repetition in range(self._plan.repeat):
            say(f"life of an instance {repetition + 1}/{self._plan.repeat}")
            self._one_life(f"r{repetition}")

    def fleet(self) -> None:
        """Many instances, few of them running: creation, lists, single requests, memory."""
        names = self._populate()
        say("lists and requests")
        time.sleep(_SETTLE)
        for box in self._boxes:
            self._fleet_memory(box)
        for _ in range(self._plan.repeat):
            for box in self._boxes:
                self._list(box)
            for box in self._boxes:
                self._requests(box, f"{box.prefix}-{names[0]}")

    def _one_life(self, label: str) -> None:
        steps: Sequence[tuple[str, int, Callable[[Box, str], list[str]]]] = (
            ("launch", 1, lambda box, name: box.system.launch(self._plan.image, name)),
            ("exec", _EXECS, lambda box, name: box.system.execute(name, "true")),
            ("snapshot", 1, lambda box, name: box.system.snapshot(name, "snap")),
            ("copy", 1, lambda box, name: box.system.copy(f"{name}/snap", f"{name}-copy")),
            ("delete", 1, lambda box, name: box.system.delete(f"{name}-copy")),
            ("stop", 1, lambda box, name: box.system.stop(name)),
            ("start", 1, lambda box, name: box.system.start(name)),
        )
        for row, times, argv in steps:
            for box in self._boxes:
                name = f"{box.prefix}-{label}"
                for _ in range(times):
                    self._timed(box, row, argv(box, name))
                if row in ("launch", "start"):
                    with self._noting(row, box):
                        self._await_boot(box, name)
        for box in self._boxes:
            with self._noting("delete", box):
                box.run(box.system.delete_running(f"{box.prefix}-{label}"))

    def _populate(self) -> list[str]:
        """Creates the fleet; returns the names of its running members, without the boxes' prefixes."""
        stopped = self._plan.total - self._plan.running
        say(f"creating {stopped} instances on each system")
        for number in range(stopped):
            for box in self._boxes:
                self._timed(box, "init", box.system.create(self._plan.image, f"{box.prefix}-s{number}"))
        names = [f"up{number}" for number in range(self._plan.running)]
        say(f"launching {self._plan.running} instances on each system")
        for name in names:
            for box in self._boxes:
                with self._noting("launch", box):
                    box.run(box.system.launch(self._plan.image, f"{box.prefix}-{name}"))
        for box in self._boxes:
            for name in names:
                with self._noting("launch", box):
                    self._await_boot(box, f"{box.prefix}-{name}")
        return names

    def _list(self, box: Box) -> None:
        output = self._timed(box, "list", box.system.list_all())
        if output is not None and (shown := output.count(f"| {box.prefix}-")) != self._plan.total:
            self._results.fail("list", box.system.key, f"shows {shown} of {self._plan.total} instances")

    def _requests(self, box: Box, running: str) -> None:
        targets = {
            "recursion2": "/1.0/instances?recursion=2",
            "recursion1": "/1.0/instances?recursion=1",
            "instance": f"/1.0/instances/{running}",
            "state": f"/1.0/instances/{running}/state",
            "server": "/1.0",
        }
        for row, target in targets.items():
            if self._plan.wants_row(row):
                with self._noting(row, box), box.connect() as connection:
                    self._request(connection, box, row, target)

    def _request(self, connection: Connection, box: Box, row: str, target: str) -> None:
        key = box.system.key
        connection.fetch("GET", "/1.0")  # the first request on a connection costs its set-up in the daemon
        for _ in range(_REQUESTS[row]):
            begin = time.perf_counter()
            answer = connection.fetch("GET", target)
            self._results.add(row, key, (time.perf_counter() - begin) * 1000)
        found = json.loads(answer)["metadata"]
        if isinstance(found, list) and len(found) != self._plan.total:
            raise WireError(f"{target} holds {len(found)} of {self._plan.total} instances")

    def _fleet_memory(self, box: Box) -> None:
        key = box.system.key
        daemon = processes.memory(box.daemon_processes())
        monitors = processes.memory(box.monitor_processes())
        self._results.add("rss-fleet", key, daemon.rss)
        self._results.add("pss-fleet", key, daemon.pss)
        self._results.add("monitor-rss", key, monitors.rss / self._plan.running)
        self._results.add("monitor-pss", key, monitors.pss / self._plan.running)

    def _timed(self, box: Box, row: str, argv: Sequence[str]) -> str | None:
        """Runs and times one command; returns its output, None on failure."""
        begin = time.perf_counter()
        with self._noting(row, box):
            output = box.run(argv)
            self._results.add(row, box.system.key, (time.perf_counter() - begin) * 1000)
            return output
        return None

    @contextlib.contextmanager
    def _noting(self, row: str, box: Box) -> Iterator[None]:
        """Notes a failure of what is done within as one of `row`; the run goes on, for the sake of the other rows."""
        try:
            yield
        except (CommandError, WireError) as error:
            self._results.fail(row, box.system.key, str(error))

    def _await_boot(self, box: Box, name: str) -> None:
        """Waits until systemd in the instance has done its start, whose load would fall on the next measurement."""
        if not self._plan.boots:
            return
        deadline = time.monotonic() + 60
        ask = box.system.execute(name, "sh", "-c", "systemctl is-system-running --wait 2>/dev/null || true")
        while box.run(ask).strip() not in ("running", "degraded"):
            if time.monotonic() > deadline:
                raise CommandError(f"{box.system.title}: {name} did not end its boot within a minute")
            time.sleep(0.2)


def say(text: str) -> None:
    print(f"bench: {text}", file=sys.stderr, flush=True)
