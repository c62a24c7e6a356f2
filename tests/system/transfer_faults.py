"""Faults, as those of `faults`, at the steps of what goes from one server to another: of the server that sends, or that receives.

python tests/system/transfer_faults.py [--driver NAME …] [--deed NAME …] [--side source|target …] [--fault …] [--every N]

Both have pools of one driver, so that instances go by layers, by subvolumes, or by rsync. What is sent must stay as it is, and
what is received be whole or not there.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import faults
from box import Daemon
from faults import Fault, Kind, Trial


@dataclass(frozen=True)
class Transfer:
    """Arguments of the client, and of what it does before."""

    arguments: tuple[str, ...]
    before: tuple[str, ...] = ()


_COPY = ("copy", "--stateless", "a:origin", "b:x")
_VOLUME = ("storage", "volume", "copy", "a:default/data", "b:default/v")
_OLDER = ("copy", "--stateless", "a:origin/s0", "b:x")
_OLDER_VOLUME = ("storage", "volume", "copy", "a:default/data/s0", "b:default/v")

TRANSFERS = {
    "copy": Transfer(_COPY),
    "push": Transfer((*_COPY, "--mode", "push")),
    "relay": Transfer((*_COPY, "--mode", "relay")),
    "refresh": Transfer((*_COPY, "--refresh"), _OLDER),
    "copy a volume": Transfer(_VOLUME),
    "refresh a volume": Transfer((*_VOLUME, "--refresh"), _OLDER_VOLUME),
}


class Side(Trial):
    """One of the two servers, where faults are tried. The subjects are on the target."""

    links = ("write", "sendmsg")
    other: Side
    client: Daemon
    """The one whose clients know both."""

    def clear(self) -> None:
        """On either."""
        for side in (self, self.other):
            side._verdict.clear(side._server)

    def suffer(self, name: str, fault: Fault) -> list[str]:
        """On either; only this one is started anew after a kill."""
        return super().suffer(name, fault) + self.other.judge(fresh=False)

    def _begin(self, name: str) -> None:
        if TRANSFERS[name].before:
            self.client.run("atoll", *TRANSFERS[name].before)

    def _attempt(self, name: str) -> None:
        self.refused += self.client.try_("atoll", *TRANSFERS[name].arguments).returncode != 0


@contextlib.contextmanager
def sides(driver: str) -> Iterator[dict[str, Side]]:
    """Source and target, in one box, gone afterwards."""
    with contextlib.ExitStack() as stack:
        made = [Side(_started(stack, None), driver)]
        made.append(Side(_started(stack, made[0]), driver))
        source, target = made
        source.other, target.other = target, source
        for name, port, side in (("a", 8443, source), ("b", 8444, target)):
            side.client = source.daemon
            side.prepare()
            side.daemon.run("atoll", "config", "set", "core.https_address", f"127.0.0.1:{port}")
            side.daemon.run("atoll", "config", "set", "core.trust_password", "secret")
            options = ("--accept-certificate", "--password", "secret")
            source.daemon.run("atoll", "remote", "add", name, f"127.0.0.1:{port}", *options)
        yield {"source": source, "target": target}


def _started(stack: contextlib.ExitStack, first: Side | None) -> Daemon:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="atoll-faults-")))
    folder.chmod(0o711)
    daemon = Daemon(folder)
    stack.callback(daemon.close)
    if first is not None:
        daemon.box.close()
        daemon.box = first.daemon.box
    daemon.start()
    return daemon


def main(drivers: Sequence[str], names: Sequence[str], where: Sequence[str], kinds: Sequence[Kind], every: int) -> int:
    """Try them all; returns how many faults had wrong consequences."""
    wrong = 0
    for driver in drivers:
        with sides(driver) as both:
            for name in names:
                for side in where:
                    print(f"{side}:", flush=True)
                    wrong += sum(faults.try_all(both[side], driver, name, kind, every) for kind in kinds)
            for sentence in (each for side in both.values() for each in side.finish()):
                print(f"{driver}: {sentence}", flush=True)
                wrong += 1
    return wrong


if __name__ == "__main__":
    parser = faults.command_line(TRANSFERS)
    parser.add_argument("--side", nargs="+", default=["source", "target"], choices=["source", "target"])
    asked = parser.parse_args()
    sys.exit(bool(main(asked.driver, asked.deed, asked.side, asked.fault, asked.every)))
