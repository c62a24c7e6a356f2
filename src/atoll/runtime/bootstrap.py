"""The process of the daemon: its log, its event loop, its signals."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atoll.domain.paths import Paths
from atoll.host import folders, memory
from atoll.runtime.assembly import Daemon

log = logging.getLogger(__name__)

LOG_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line decides."""

    state_dir: Path
    group: str
    log_file: Path | None
    log_level: str
    driver: str = "lxc"  # of instances; ATOLL_INSTANCE_DRIVER names another, a plug-in perhaps


def serve(options: Options) -> None:
    """Run the daemon until it is told to end."""
    _log_to(options)
    folders.make_state(Paths(options.state_dir))
    # Request handling makes few cycles; full collections over a large heap would only be pauses.
    gc.set_threshold(50_000, 20, 100)
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(_main(options))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


def _log_to(options: Options) -> None:
    handlers: list[logging.Handler] = [logging.StreamHandler(sys.stderr)]
    if options.log_file is not None:
        options.log_file.parent.mkdir(parents=True, exist_ok=True)
        handlers.append(logging.FileHandler(options.log_file))
    logging.basicConfig(level=options.log_level.upper(), format=LOG_FORMAT, handlers=handlers)
    for name in ("aiohttp", "asyncio", "uvloop"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _main(options: Options) -> None:
    daemon = Daemon(Paths(options.state_dir), driver=options.driver)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        loop.add_signal_handler(number, daemon.end.set)
    loop.add_signal_handler(signal.SIGPWR, daemon.host_goes_down)
    try:
        await daemon.start(group=options.group)
        _settle_memory()
        await daemon.end.wait()
    finally:
        await daemon.stop()


def _settle_memory() -> None:
    """What the start has made stays: keep the collector from walking over it, and give back what it needed in between."""
    memory.give_back()
    gc.freeze()
