"""`atolld init`: which of its modes, and what each does."""

from __future__ import annotations

import os
import sys

from atoll.cli.arguments import Flags
from atoll.cli.errors import CommandError
from atoll.client.errors import ClientError
from atoll.client.server import Server
from atoll.runtime import home
from atoll.runtime.call import Call
from atoll.runtime.init import apply, automatic, dialogue, dump, facts, preseed, questions
from atoll.runtime.init.automatic import Wishes
from atoll.runtime.init.facts import Facts

MODES = ("auto", "dump", "minimal", "preseed")
SETTINGS = (
    "network-address",
    "network-port",
    "storage-backend",
    "storage-create-device",
    "storage-create-loop",
    "storage-pool",
    "trust-password",
)
OVERLAY = "overlay"
OVERLAY_KERNEL = (5, 19)


def run(call: Call) -> int:
    """Configure the server as the flags say: by answers, by decision, or from a document."""
    check_flags(call.flags)
    document = preseed.parse(_read_preseed(call.arguments)) if call.flags.on("preseed") else None
    server = _connect(call)
    if call.flags.on("dump"):
        print(preseed.render(dump.collect(server)))
        return 0
    apply.apply(server, document or _make(call.flags, facts.gather(server, home.directory())))
    return 0


def check_flags(flags: Flags) -> None:
    """CommandError for flags that do not go together."""
    modes = [mode for mode in MODES if flags.on(mode)]
    settings = [name for name in SETTINGS if flags.given(name)]
    if "dump" in modes and (len(modes) > 1 or settings):
        raise CommandError("Can't use --dump with other flags")
    for first, second in (("auto", "preseed"), ("minimal", "preseed"), ("minimal", "auto")):
        if first in modes and second in modes:
            raise CommandError(f"Can't use --{first} and --{second} together")
    if settings and "auto" not in modes:
        raise CommandError("Configuration flags require --auto")
    if "auto" in modes:
        automatic.check(wishes(flags))


def wishes(flags: Flags) -> Wishes:
    """What the flags of --auto say."""
    return Wishes(
        address=flags.text("network-address"),
        port=flags.number("network-port"),
        backend=flags.text("storage-backend"),
        device=flags.text("storage-create-device"),
        loop=flags.number("storage-create-loop"),
        pool=flags.text("storage-pool"),
        password=flags.text("trust-password"),
    )


def _read_preseed(arguments: list[str]) -> str:
    """The document: the file that is named, else standard input."""
    if not arguments or arguments[0] == "-":
        return sys.stdin.read()
    try:
        with open(arguments[0], encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise CommandError(f"Failed to read the preseed {arguments[0]}: {error.strerror}") from error


def _connect(call: Call) -> Server:
    server = call.server()
    try:
        server.get("/1.0")
    except ClientError as error:
        raise CommandError(f"Failed to connect to local Atoll: {error}") from error
    return server


def _make(flags: Flags, known: Facts) -> preseed.Preseed:
    if not (flags.on("auto") or flags.on("minimal")):
        return questions.ask(dialogue.on_standard_streams(), known)
    wanted = automatic.decide(wishes(flags), known)
    if wanted["storage_pools"] and not flags.given("storage-backend"):
        _explain_backend(wanted["storage_pools"][0]["driver"])
    return wanted


def _explain_backend(driver: str) -> None:
    """Say why it is not the default."""
    if driver != OVERLAY:
        print(f"Using the {driver} storage backend: {why_not_overlay(os.uname().release)}", file=sys.stderr)


def why_not_overlay(release: str) -> str:
    """The reason in words, from the kernel's release."""
    numbers = tuple(int(part) for part in release.partition("-")[0].split(".")[:2] if part.isdecimal())
    if numbers < OVERLAY_KERNEL:
        return f"overlay needs Linux 5.19 or newer, this is {release}"
    return f"overlay with idmapped mounts does not work on the file system of {home.directory()}"
