"""What a program made with pylxd does to two servers by HTTPS. Run as `by_pylxd.py FOLDER SERVER SERVER`, where the folder has
the client's certificate; ends with an error at the first thing that is not as it should be."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path

import pylxd
import urllib3

SECONDS = 60.0
"""How long the servers may take."""


def connect(folder: Path, server: str) -> pylxd.Client:
    """A client that the server trusts."""
    client = pylxd.Client(endpoint=server, cert=(str(folder / "client.crt"), str(folder / "client.key")), verify=False)
    assert client.trusted
    return client


def use(client: pylxd.Client) -> None:
    """An instance from an image: commands, files, snapshots, an image of it."""
    made = client.instances.create({"name": "p1", "source": {"type": "image", "alias": "tiny"}}, wait=True)
    made.start(wait=True)
    result = made.execute(["sh", "-c", "cat; echo $A; echo err >&2; exit 3"], environment={"A": "b"}, stdin_payload="in")
    assert (result.exit_code, result.stdout, result.stderr) == (3, "inb\n", "err\n"), result
    made.files.put("/root/big", bytes(range(256)) * 4096, mode="0640", uid=7, gid=8)
    assert made.files.get("/root/big") == bytes(range(256)) * 4096
    assert made.execute(["stat", "-c", "%a %u %g", "/root/big"]).stdout == "640 7 8\n"
    made.files.delete("/root/big")
    assert made.state().network["lo"]["state"] == "up"
    made.snapshots.create("s1", wait=True)
    made.stop(force=True, wait=True)
    image = made.publish(wait=True)
    with image.export() as content:
        data = content.read()
    image.delete(wait=True)
    again = client.images.create(data, public=True)
    assert (again.fingerprint, again.public) == (image.fingerprint, True)
    again.delete(wait=True)


def hear(client: pylxd.Client, source: str) -> list[bytes]:
    """The lifecycle events of one change."""
    heard: list[bytes] = []
    events = client.events(event_types={pylxd.EventType.Lifecycle})

    def received(message: object) -> None:
        heard.append(bytes(getattr(message, "data", b"")))
        events.close()

    events.received_message = received
    events.connect()
    listening = threading.Thread(target=events.run, daemon=True)
    listening.start()
    instance = client.instances.get(source)
    instance.config["user.a"] = "b"
    instance.save(wait=True)
    listening.join(SECONDS)
    return heard


def main(folder: str, *servers: str) -> None:
    """All of it, in order."""
    urllib3.disable_warnings()
    here, there = (connect(Path(folder), server) for server in servers)
    use(here)
    assert b"instance-updated" in hear(here, "p1")[0]
    here.instances.get("p1").migrate(there, wait=True)
    deadline = time.monotonic() + SECONDS
    while here.instances.exists("p1"):  # pylxd does not wait until the source is deleted
        assert time.monotonic() < deadline
        time.sleep(0.05)
    moved = there.instances.get("p1")
    assert (moved.config["user.a"], [each.name for each in moved.snapshots.all()]) == ("b", ["s1"])
    moved.start(wait=True)
    assert moved.execute(["true"]).exit_code == 0
    moved.stop(force=True, wait=True)
    moved.delete(wait=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
