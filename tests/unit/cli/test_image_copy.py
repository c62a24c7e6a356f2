"""`image copy`: which server is asked for what in each mode."""

from __future__ import annotations

from typing import Any

import pytest
from recorder import NOT_FOUND, Operation, Recorder

from atoll.cli import arguments
from atoll.cli.commands import image_copy
from atoll.cli.config import Config
from atoll.cli.errors import CommandError
from atoll.cli.tables.images import COMMANDS
from atoll.client.errors import OperationFailed

FINGERPRINT = "ab" * 32
IMAGE = {
    "fingerprint": FINGERPRINT, "public": False, "profiles": ["default"], "properties": {"os": "Tiny one"},
    "expires_at": "2100-01-01T00:00:00Z", "aliases": [{"name": "tiny"}],
}  # fmt: skip
DONE = Operation(metadata={"fingerprint": FINGERPRINT})


def server(**answers: Any) -> Recorder:
    """One that has the image, and that others reach at the address which it says itself."""
    return Recorder(
        {
            "GET /1.0": {"environment": {"addresses": ["192.0.2.1:8443"], "certificate": "PEM"}},
            "GET /1.0/images/aliases/tiny": {"target": FINGERPRINT},
            f"GET /1.0/images/{FINGERPRINT}": IMAGE,
            f"POST /1.0/images/{FINGERPRINT}/secret": {"metadata": {"secret": "open"}},
            "POST /1.0/images": DONE,
            f"POST /1.0/images/{FINGERPRINT}/export": Operation(),
            "PATCH /1.0/images/aliases/tiny": {},
            "PATCH /1.0/images/aliases/mine": {},
            **answers,
        }
    )


class Call:
    """What the command needs of a call."""

    def __init__(self, words: list[str], servers: dict[str, Recorder]) -> None:
        self.flags = arguments.Flags(COMMANDS["image copy"].flags)
        self.arguments = arguments.parse(words, self.flags)
        remotes = {"far": {"addr": "https://far:8443"}, "streams": {"addr": "https://streams", "protocol": "simplestreams"}}
        self.config = Config({"remotes": remotes}, "/nonexistent/config.yml")
        self._servers = servers

    def server(self, remote: str) -> Recorder:
        return self._servers[remote]

    def resolve(self, text: str) -> tuple[Recorder, str]:
        remote, name = self.config.split(text)
        return self._servers[remote], name

    def change(self, server: Recorder, method: str, path: str, body: object = None, *, label: str = "") -> Any:
        return server.change(method, path, body)

    def say(self, text: str) -> None:
        return None


def copied(*words: str, target: Recorder | None = None, source: Recorder | None = None) -> tuple[Recorder, Recorder]:
    """(source, target) after a copy from local to far."""
    servers = {"local": source or server(), "far": target or server()}
    image_copy.copy(Call(list(words), servers))  # type: ignore[arg-type]
    return servers["local"], servers["far"]


def test_pulled_by_a_secret():
    _, target = copied("tiny", "far:", "--public", "--copy-aliases", "--alias", "mine")
    ((_, body),) = target.sent("POST /1.0/images")
    assert body["source"] == {
        "type": "image", "mode": "pull", "protocol": "lxd", "project": "", "server": "https://192.0.2.1:8443",
        "certificate": "PEM", "secret": "open", "fingerprint": FINGERPRINT,
    }  # fmt: skip
    assert body["public"] is True
    assert [line for line, _ in target.requests if "aliases" in line] == [
        "PATCH /1.0/images/aliases/mine", "PATCH /1.0/images/aliases/tiny"
    ]  # fmt: skip


def test_pushed_with_a_token():
    target = server(**{"POST /1.0/images": {"metadata": {"secret": "token"}}})
    source, target = copied("tiny", "far:", "--mode", "push", "--profile", "p1", target=target)
    ((_, wished),) = target.sent("POST /1.0/images")
    assert wished["source"] == {"mode": "push", "fingerprint": FINGERPRINT}
    assert (wished["properties"], wished["expires_at"]) == (IMAGE["properties"], IMAGE["expires_at"])
    ((_, order),) = source.sent(f"POST /1.0/images/{FINGERPRINT}/export")
    assert order == {
        "target": "https://far:8443", "certificate": "PEM", "secret": "token", "project": "", "profiles": ["p1"]
    }  # fmt: skip


def test_a_token_that_was_of_no_use_does_not_stay():
    refused = OperationFailed("no room", status=400)
    target = server(**{"POST /1.0/images": {"metadata": {"secret": "token"}}, "DELETE operation": NOT_FOUND})
    source = server(**{f"POST /1.0/images/{FINGERPRINT}/export": refused})
    with pytest.raises(OperationFailed, match="no room"):
        copied("tiny", "far:", "--mode", "push", source=source, target=target)
    assert target.sent("DELETE operation")


def test_within_a_server_only_to_another_project():
    with pytest.raises(CommandError, match="must be different"):
        copied("tiny", "local:")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["tiny", "far"], "names no remote"),
        (["tiny", "far:", "--mode", "fly"], "there are pull, push, relay"),
        (["tiny", "far:", "--mode", "push", "--auto-update"], "target pulls"),
        (["tiny", "far:", "--mode", "relay", "--auto-update"], "target pulls"),
        (["streams:tiny", "far:", "--mode", "push"], "pushes nothing"),
    ],
)
def test_what_cannot_be(words: list[str], text: str):
    source = server()
    with pytest.raises(CommandError, match=text):
        image_copy.copy(Call(words, {"local": source, "far": server()}))  # type: ignore[arg-type]
    assert not source.sent(f"POST /1.0/images/{FINGERPRINT}/export")
