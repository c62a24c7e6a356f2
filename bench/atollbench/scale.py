"""How many containers, how soon: `count` running ones through the API of one system."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from atollbench import machine, processes
from atollbench.boxes import Box
from atollbench.measure import say
from atollbench.stats import Results
from atollbench.wire import Connection, WireError

_WORKERS = 8
_REPEAT = 3


def measure(box: Box, results: Results, *, count: int, image: str, networked: bool) -> None:
    """Brings `count` instances of `image` up and measures the system with them. The box is to have none before."""
    say(f"{box.system.title}: {count} containers")
    key = box.system.key
    free = machine.available_memory()
    begin = time.perf_counter()
    _bring_up(box, count=count, image=image, networked=networked)
    results.add("scale-reach", key, time.perf_counter() - begin)
    _expect_running(box, count)
    for _ in range(_REPEAT):
        results.add("scale-list", key, _milliseconds(lambda: box.run(box.system.list_all())))
        with box.connect() as connection:
            whole = _milliseconds(lambda: connection.fetch("GET", "/1.0/instances?recursion=2"))
        results.add("scale-recursion2", key, whole)
    monitors = processes.memory(box.monitor_processes())
    results.add("scale-rss", key, processes.memory(box.daemon_processes()).rss)
    results.add("scale-monitor-rss", key, monitors.rss / count)
    results.add("scale-monitor-pss", key, monitors.pss / count)
    results.add("scale-memory", key, (free - machine.available_memory()) / count)


def _bring_up(box: Box, *, count: int, image: str, networked: bool) -> None:
    """Creates and starts all, `_WORKERS` at a time, each worker with a connection of its own."""
    with box.connect() as connection:
        at_once = "instance_create_start" in connection.call("GET", "/1.0")["metadata"]["api_extensions"]
    own = threading.local()
    connections: list[Connection] = []

    def connect() -> None:
        own.connection = box.connect()
        connections.append(own.connection)

    def bring_up(number: int) -> None:
        request = {
            "name": f"{box.prefix}-n{number}",
            "source": {"type": "image", "alias": image},
            "devices": {} if networked else {"eth0": {"type": "none"}},
            "start": at_once,
        }
        _create(own.connection, request)

    with ThreadPoolExecutor(_WORKERS, initializer=connect) as pool:
        try:
            for done in [pool.submit(bring_up, number) for number in range(count)]:
                done.result()
        finally:
            pool.shutdown(cancel_futures=True)
            for connection in connections:
                connection.close()


def _create(connection: Connection, request: dict[str, object]) -> None:
    connection.finish(connection.call("POST", "/1.0/instances", request))
    if not request["start"]:
        state = {"action": "start", "timeout": -1}
        connection.finish(connection.call("PUT", f"/1.0/instances/{request['name']}/state", state))


def _expect_running(box: Box, count: int) -> None:
    with box.connect() as connection:
        instances = connection.call("GET", "/1.0/instances?recursion=1")["metadata"]
    running = sum(instance["status"] == "Running" for instance in instances)
    if running != count:
        raise WireError(f"{running} of {count} containers run")


def _milliseconds(act: Callable[[], object]) -> float:
    begin = time.perf_counter()
    act()
    return (time.perf_counter() - begin) * 1000
