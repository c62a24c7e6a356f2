"""`atolld recover`: answers in, requests to the daemon out."""

from __future__ import annotations

import io
from typing import Any

import pytest

from atoll.cli.errors import CommandError
from atoll.runtime import home as homes
from atoll.runtime.commands import recover
from atoll.runtime.init.dialogue import Dialogue

VALIDATE, IMPORT = "/internal/recover/validate", "/internal/recover/import"
FOUND = {"name": "c1", "type": "container", "snapshotCount": 2, "project": "default", "pool": "p"}


def pool(name: str, status: str = "Created") -> dict[str, Any]:
    """One that the server knows."""
    return {"name": name, "driver": "dir", "config": {"source": f"/pools/{name}"}, "status": status}


@pytest.fixture
def server(fake: Any) -> Any:
    """With one pool, in which nothing is lost."""
    fake.objects["/1.0"]["environment"] = {"storage_supported_drivers": [{"Name": "dir"}, {"Name": "overlay"}]}
    fake.objects["/1.0/storage-pools/p"] = pool("p")
    fake.answers[f"POST {VALIDATE}"] = {"UnknownVolumes": None, "DependencyErrors": None}
    fake.answers[f"POST {IMPORT}"] = {}
    return fake


def converse(*answers: str) -> str:
    """What is shown for these answers, after which the input ends."""
    lines = io.StringIO("".join(answer + "\n" for answer in answers))
    shown: list[str] = []
    connection = homes.server()
    try:
        recover.converse(connection, Dialogue(read=lines.readline, secret=lambda _: "", write=shown.append))
    finally:
        connection.close()
    assert not lines.read(), "an answer was left over"
    return "".join(shown)


def test_nothing_to_do(server: Any) -> None:
    shown = converse("no", "yes")
    assert shown.endswith("No unknown volumes found. Nothing to do.\n")
    assert shown.startswith(
        'This Atoll server currently has the following storage pools:\n - "p" (backend="dir", source="/pools/p")'
    )
    assert server.changes == [("POST", VALIDATE, {"pools": [{"name": "p"}]})]
    assert converse("no", "no").endswith("(yes/no) [default=yes]: ")


def test_a_pool_that_is_not_available_keeps_the_others_from_nothing(server: Any) -> None:
    server.objects["/1.0/storage-pools/away"] = pool("away", "Unavailable")
    shown = converse("no", "yes")
    assert ' - "away" (backend="dir", source="/pools/away"), not available\n' in shown
    assert 'EXISTING: "p"' in shown and 'EXISTING: "away"' not in shown
    assert server.changes == [("POST", VALIDATE, {"pools": [{"name": "p"}]})]


def test_another_pool_and_what_is_found(server: Any) -> None:
    server.answers[f"POST {VALIDATE}"] = {"UnknownVolumes": [FOUND], "DependencyErrors": None}
    answers = ("yes", "p", "q", "zfs", "dir", "", "/pools/q", "bad", "user.a=b=c", "", "no", "yes", "yes")
    shown = converse(*answers)
    assert ' - NEW: "q" (backend="dir", source="/pools/q")' in shown
    assert ' - Container "c1" on pool "p" in project "default" (includes 2 snapshots)' in shown
    config = {"source": "/pools/q", "user.a": "b=c"}
    body = {"pools": [{"name": "p"}, {"name": "q", "driver": "dir", "config": config}]}
    assert server.changes == [("POST", VALIDATE, body), ("POST", IMPORT, body)]


def test_it_may_be_left_lost(server: Any) -> None:
    server.answers[f"POST {VALIDATE}"] = {"UnknownVolumes": [FOUND]}
    converse("no", "yes", "")
    assert [path for _, path, _ in server.changes] == [VALIDATE]


def test_what_is_missing_is_asked_for_until_it_is_there(server: Any) -> None:
    server.answers[f"POST {VALIDATE}"] = {"UnknownVolumes": [FOUND], "DependencyErrors": ['Project "x"']}
    with pytest.raises(CommandError, match="EOF"):
        converse("no", "yes", "", "")
    assert len(server.changes) == 3


def test_refusals(server: Any) -> None:
    server.refuse[f"POST {VALIDATE}"] = "Failed checking volumes"
    with pytest.raises(CommandError, match="Failed validation request: Failed checking volumes"):
        converse("no", "yes")
