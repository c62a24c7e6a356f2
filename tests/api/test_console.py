"""Consoles over websockets, and their logs, on simulated machines, whose console shows a prompt and echoes."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import aiohttp
import pytest

CONSOLE = "/1.0/instances/c1/console"
SECONDS = 30


@pytest.fixture
async def running(app: Any) -> Any:
    await app.create("c1")
    await app.set_state("c1", "start")
    return app


async def attached(app: Any, **body: Any) -> tuple[dict[str, Any], dict[str, aiohttp.ClientWebSocketResponse]]:
    """The operation's first answer, and its websockets."""
    status, content = await app.call("POST", CONSOLE, body)
    assert (status, content["metadata"]["class"]) == (202, "websocket")
    assert set(content["metadata"]["metadata"]["fds"]) == {"0", "control"}
    sockets = {
        name: await app.session.ws_connect(f"{content['operation']}/websocket?secret={secret}")
        for name, secret in content["metadata"]["metadata"]["fds"].items()
    }
    return content, sockets


async def shown(socket: aiohttp.ClientWebSocketResponse, text: bytes) -> None:
    """Read until that was shown."""
    seen = b""
    while text not in seen:
        seen += await socket.receive_bytes(timeout=SECONDS)


async def test_typing_and_seeing(running: Any) -> None:
    events = await running.events("?type=lifecycle")
    content, sockets = await attached(running, width=100, height=40)
    await shown(sockets["0"], b"login: ")
    await sockets["0"].send_bytes(b"hello\r")
    await shown(sockets["0"], b"hello\r\n")
    for message in ("{", "[]", '{"command":"window-resize"}', '{"command":"signal","signal":9}'):
        await sockets["control"].send_str(message)
    await sockets["control"].send_str(json.dumps({"command": "window-resize", "args": {"width": "80", "height": "24"}}))
    await sockets["control"].close()
    assert (await running.ended(content))["status"] == "Success"
    told = json.loads((await events.receive(timeout=SECONDS)).data)["metadata"]
    assert (told["action"], told["context"]) == ("instance-console", {"type": "console"})
    assert (await sockets["0"].receive(timeout=SECONDS)).type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED)


async def test_a_client_that_vanishes_leaves_the_console_to_the_next(running: Any) -> None:
    for _ in range(3):
        content, sockets = await attached(running)
        await shown(sockets["0"], b"login: ")
        await sockets["0"].close()
        assert (await running.ended(content))["status"] == "Success"
        await sockets["control"].close()


async def test_one_at_a_time(running: Any) -> None:
    first, sockets = await attached(running)
    await shown(sockets["0"], b"login: ")
    assert await running.refused("POST", CONSOLE, {}) == (409, "This console is already connected")
    status, _ = await running.call("DELETE", first["operation"])
    assert status == 200
    assert (await running.ended(first))["status"] == "Cancelled"
    second, sockets = await attached(running)
    await shown(sockets["0"], b"login: ")
    await sockets["control"].close()
    assert (await running.ended(second))["status"] == "Success"


async def test_two_who_come_together(running: Any) -> None:
    """Both got an operation before either was connected: the console is one's."""
    contents = [(await running.call("POST", CONSOLE, {}))[1] for _ in range(2)]
    sockets = []
    for content in contents:
        secret = content["metadata"]["metadata"]["fds"]["0"]
        sockets.append(await running.session.ws_connect(f"{content['operation']}/websocket?secret={secret}"))
    await shown(sockets[0], b"login: ")
    ended = await running.ended(contents[1])
    assert (ended["status"], ended["err"]) == ("Failure", "This console is already connected")
    await sockets[0].close()
    assert (await running.ended(contents[0]))["status"] == "Success"


async def test_the_machine_ends(running: Any) -> None:
    content, sockets = await attached(running)
    await shown(sockets["0"], b"login: ")
    await running.set_state("c1", "stop", force=True)
    assert (await running.ended(content))["status"] == "Success"
    assert sockets["0"].closed or (await sockets["0"].receive(timeout=SECONDS)).type is aiohttp.WSMsgType.CLOSE


async def test_a_client_that_does_not_read_holds_nobody_up(running: Any) -> None:
    """The echo of what is typed goes on being taken from the machine, and the console can be left."""
    content, sockets = await attached(running)
    typing = asyncio.ensure_future(_type_on(sockets["0"]))
    await asyncio.sleep(0.2)
    typing.cancel()
    await sockets["control"].close()
    assert (await asyncio.wait_for(running.ended(content), SECONDS))["status"] == "Success"


async def _type_on(socket: aiohttp.ClientWebSocketResponse) -> None:
    while True:
        await socket.send_bytes(b"x" * 1000 + b"\r")


async def test_the_log(running: Any) -> None:
    events = await running.events("?type=lifecycle")
    assert await text(running) == b""
    content, sockets = await attached(running)
    await shown(sockets["0"], b"login: ")
    await sockets["control"].close()
    await running.ended(content)
    assert await text(running) == b"login: "
    await running.set_state("c1", "stop", force=True)
    assert await text(running) == b"login: "
    await running.do("DELETE", CONSOLE)
    assert await text(running) == b""
    told = [json.loads((await events.receive(timeout=SECONDS)).data)["metadata"]["action"] for _ in range(6)]
    retrieved, reset = "instance-console-retrieved", "instance-console-reset"
    assert told == [retrieved, "instance-console", retrieved, "instance-stopped", retrieved, reset]


async def text(app: Any) -> bytes:
    async with app.session.get(CONSOLE) as answer:
        assert (answer.status, answer.content_type) == (200, "application/octet-stream")
        return await answer.read()


async def test_what_is_refused(app: Any) -> None:
    assert (await app.refused("POST", CONSOLE, {}))[0] == 404
    await app.create("c1")
    assert await app.refused("GET", CONSOLE) == (404, "There is no console log")
    assert await app.refused("POST", CONSOLE, {}) == (400, "Instance is not running")
    await app.set_state("c1", "start")
    for kind in ("vga", "serial"):
        status, error = await app.refused("POST", CONSOLE, {"type": kind})
        assert status == 400 and "console" in error
    await app.set_state("c1", "freeze")
    assert (await app.refused("POST", CONSOLE, {}))[0] == 409
