"""`atolld` itself: from flags to a running daemon."""

from __future__ import annotations

import grp
import logging
import logging.handlers
import os
from pathlib import Path

from atoll.cli.errors import CommandError
from atoll.runtime import home, lean
from atoll.runtime.call import Call

DEFAULT_GROUP = "atoll"
SYSLOG_SOCKET = "/dev/log"


def run(call: Call) -> int:
    """Serve until told to stop; CommandError for an unknown group or without root's rights."""
    if os.geteuid() != 0:
        raise CommandError("This must be run as root")
    with lean.imports():
        from atoll.runtime import bootstrap

    log_file = call.flags.text("logfile")
    options = bootstrap.Options(
        state_dir=home.directory().absolute(),
        group=choose_group(call.flags.text("group")),
        log_file=Path(log_file).absolute() if log_file else None,
        log_level=log_level(debug=call.flags.on("debug"), verbose=call.flags.on("verbose")),
        driver=os.environ.get("ATOLL_INSTANCE_DRIVER", "lxc"),
    )
    if call.flags.on("syslog"):
        _log_to_syslog()
    bootstrap.serve(options)
    return 0


def choose_group(wanted: str) -> str:
    """The group that may use the socket: the one asked for, else `atoll` where the host has it, else root."""
    if not wanted:
        return DEFAULT_GROUP if _exists(DEFAULT_GROUP) else "root"
    if not _exists(wanted):
        raise CommandError(f'The group "{wanted}" does not exist on this host')
    return wanted


def _exists(group: str) -> bool:
    try:
        grp.getgrnam(group)
    except KeyError:
        return False
    return True


def log_level(*, debug: bool, verbose: bool) -> str:
    """The least severe messages that are logged: "debug", "info" or "warning"."""
    return "debug" if debug else "info" if verbose else "warning"


def _log_to_syslog() -> None:
    """Send the log to syslog too: to the package's own logger, since `bootstrap` sets up the root one."""
    try:
        handler = logging.handlers.SysLogHandler(SYSLOG_SOCKET)
    except OSError as error:
        raise CommandError(f"No syslog listens at {SYSLOG_SOCKET}: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("atolld[%(process)d]: %(levelname)s %(name)s: %(message)s"))
    logging.getLogger("atoll").addHandler(handler)
