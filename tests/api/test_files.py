"""Files of instances by the API: real trees, simulated machines. What a hostile tree does is seen in tests/unit/host too."""

from __future__ import annotations

import asyncio
import os
import select
import stat
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from atoll.services.instances import files

FILES = "/1.0/instances/c1/files"
SECRET = "the host's"


@pytest.fixture
async def root(request: pytest.FixtureRequest, app: Any) -> Path:
    """The root file system of an instance `c1`, which runs unless a test's parameter says "stopped". Beside it is what nobody
    may see."""
    await app.create("c1")
    await app.set_state("c1", "start")
    rootfs: Path = app.paths.containers / "c1/rootfs"
    if getattr(request, "param", "") == "stopped":
        await app.set_state("c1", "stop", force=True)
    (rootfs.parent / "secret").write_text(SECRET)
    (rootfs / "etc").mkdir()
    (rootfs / "etc/hosts").write_text("127.0.0.1 localhost\n")
    return rootfs


async def get(app: Any, path: str, method: str = "GET", **query: str) -> tuple[int, dict[str, str], bytes]:
    """(status, headers in lower case, body)"""
    async with app.session.request(method, FILES, params={"path": path, **query}) as answer:
        return answer.status, {name.lower(): value for name, value in answer.headers.items()}, await answer.read()


async def post(app: Any, path: str, body: Any = b"", **headers: str) -> tuple[int, str]:
    """(status, text) of a POST; `uid="5"` is the header X-LXD-uid."""
    named = {f"X-LXD-{name}": value for name, value in headers.items()}
    async with app.session.post(FILES, params={"path": path}, data=body, headers=named) as answer:
        content = await answer.json()
        return answer.status, content["error"]


BOTH = pytest.mark.parametrize("root", ["running", "stopped"], indirect=True)


@BOTH
async def test_a_file_there_and_back(app: Any, root: Path) -> None:
    events = await app.events("?type=lifecycle")
    assert await post(app, "/etc/new", b"text", uid="5", gid="6", mode="0640") == (200, "")
    found = (root / "etc/new").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid, found.st_gid) == (0o640, 5, 6)
    assert await post(app, "etc/new", b"longer text", uid="7", mode="0777") == (200, "")
    assert await post(app, "../etc/new", b"!", write="append") == (200, "")
    os.utime(root / "etc/new", (0, 1577934245))
    status, headers, body = await get(app, "/etc/new")
    assert (status, body, headers["content-length"]) == (200, b"longer text!", "12")
    assert {name: headers[f"x-lxd-{name}"] for name in ("uid", "gid", "mode", "type", "modified")} == {
        "uid": "5",
        "gid": "6",
        "mode": "0640",
        "type": "file",
        "modified": "2020-01-02 03:04:05 +0000 UTC",
    }
    assert headers["content-type"] == "application/octet-stream" and headers["content-disposition"] == "inline;filename=new"
    status, heads, body = await get(app, "/etc/new", "HEAD")
    assert (status, body) == (200, b"") and heads["x-lxd-mode"] == "0640"
    await app.do("DELETE", f"{FILES}?path=/etc/new")
    assert not (root / "etc/new").exists()
    told = [(await events.receive_json(timeout=30))["metadata"] for _ in range(5)]
    actions = ["instance-file-pushed"] * 3 + ["instance-file-retrieved", "instance-file-deleted"]
    assert [each["action"] for each in told] == actions and told[0]["context"] == {"path": "/etc/new"}
    await events.close()


async def test_defaults_of_what_is_new(app: Any, root: Path) -> None:
    assert await post(app, "/f", b"") == (200, "")
    assert await post(app, "/d", type="directory") == (200, "")
    assert await post(app, "/d", type="directory", mode="0700") == (200, "")
    assert await post(app, "/decimal", mode="384") == (200, "")
    modes = {name: stat.S_IMODE((root / name).stat().st_mode) for name in ("f", "d", "decimal")}
    assert modes == {"f": 0o644, "d": 0o750, "decimal": 0o600}
    status, headers, body = await get(app, "/f")
    assert (status, headers["content-length"], body) == (200, "0", b"")


async def test_directories_are_lists(app: Any, root: Path) -> None:
    for name in ("b", "a", os.fsdecode(b"\xff\xfe"), "with space"):
        (root / "etc" / name).touch()
    status, headers, _ = await get(app, "/etc/")
    assert (status, headers["x-lxd-type"], headers["content-type"]) == (200, "directory", "application/json")
    assert await app.get(f"{FILES}?path=/etc") == ["a", "b", "hosts", "with space", "\ufffd\ufffd"]
    assert (await get(app, "/etc/with space"))[0] == 200
    async with app.session.get(f"http://atoll{FILES}?path=/etc/%FF%FE") as answer:
        assert answer.status == 200


async def test_links(app: Any, root: Path) -> None:
    assert await post(app, "/etc/rel", b"hosts", type="symlink", uid="5") == (200, "")
    assert await post(app, "/etc/rel", b"hosts", type="symlink") == (200, "")
    assert (await post(app, "/etc/rel", b"other", type="symlink"))[0] == 409
    assert os.readlink(root / "etc/rel") == "hosts" and (root / "etc/rel").lstat().st_uid == 5
    status, headers, body = await get(app, "/etc/rel")
    assert (status, headers["x-lxd-type"], body) == (200, "symlink", b"/etc/hosts")
    (root / "etc/resolv.conf").symlink_to("../run/resolv.conf")
    (root / "run").mkdir()
    assert await post(app, "/etc/resolv.conf", b"nameserver ::1") == (200, "")
    assert (root / "run/resolv.conf").read_text() == "nameserver ::1"
    await app.do("DELETE", f"{FILES}?path=/etc/resolv.conf")
    assert (root / "run/resolv.conf").exists()


async def test_large_files_are_streamed(app: Any, root: Path) -> None:
    block = os.urandom(1 << 20)

    async def body() -> AsyncIterator[bytes]:
        for _ in range(40):
            yield block

    assert await post(app, "/big", body()) == (200, "")
    status, headers, content = await get(app, "/big")
    assert status == 200 and headers["content-length"] == str(40 << 20) and content == block * 40


REFUSED = [
    ("GET", "/none", 404, "Not Found"),
    ("GET", "/etc/hosts/x", 404, "Not Found"),
    ("DELETE", "/none", 404, "Not Found"),
    ("POST", "/none/x", 404, "Not Found"),
    ("DELETE", "/etc", 400, "Directory not empty"),
    ("DELETE", "/", 400, "Not the name of a file"),
    ("POST", "/etc", 400, "Is a directory"),
    ("GET", "", 400, "Missing path argument"),
    ("POST", "", 400, "Missing path argument"),
    ("DELETE", "", 400, "Missing path argument"),
    ("GET", "/fifo", 400, "Not a regular file, directory or symbolic link"),
    ("POST", "/fifo", 400, "Not a regular file, directory or symbolic link"),
    ("GET", "/loop/x", 400, "Too many levels of symbolic links"),
    ("POST", "/loop", 400, "Too many levels of symbolic links"),
]


@BOTH
async def test_what_cannot_be(app: Any, root: Path) -> None:
    os.mkfifo(root / "fifo")
    (root / "loop").symlink_to("loop")
    for method, path, status, text in REFUSED:
        assert await app.refused(method, FILES, params={"path": path}) == (status, text), (method, path)


async def test_headers_that_say_nothing(app: Any, root: Path) -> None:
    assert await post(app, "/x", b"x", write="both") == (400, "Bad file write mode: both")
    assert await post(app, "/x", b"x", type="device") == (400, "Bad file type: device")
    assert not (root / "x").exists()
    for number, value in enumerate(["-1", "x", "1e3", "0x10", "99999999999", "4294967295", ""]):
        assert await post(app, f"/{number}", b"x", uid=value, gid=value, mode=value) == (200, "")
        found = (root / str(number)).stat()
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (os.geteuid(), os.getegid(), 0o644), value


NAMES = ["..", "../x", "a/b", "/abs", "%2f", "%252f", "\n", "-rf", "$(id)", "%", "", "x" * 5000, "a\0b"]
KINDS = ("file", "directory", "symlink")


def siblings(root: Path) -> list[str]:
    """What is beside it, but for what the daemon writes there by itself."""
    return sorted(name for name in os.listdir(root.parent) if not name.endswith("backup.yaml"))


async def test_names_stay_inside(app: Any, root: Path) -> None:
    """M-NAME for paths: whatever is made is below the root, whatever is asked is answered."""
    before = siblings(root)
    for name in NAMES:
        for method, headers in ((m, {"X-LXD-type": k}) for m in ("POST", "HEAD", "DELETE") for k in KINDS):
            async with app.session.request(method, FILES, params={"path": f"/etc/{name}"}, headers=headers) as answer:
                assert answer.status in (200, 400, 404, 409), (method, name)
    assert siblings(root) == before and (root.parent / "secret").read_text() == SECRET
    async with app.session.get("http://atoll/1.0/instances/%2e%2e/files?path=/") as answer:
        assert answer.status in (400, 404)


@BOTH
async def test_links_do_not_lead_out(app: Any, root: Path) -> None:
    """M-SYM for paths: absolute links and those with `..`, as a file and on the way to one."""
    for number, target in enumerate(("../secret", f"../../../../../../..{root.parent}/secret", f"{root.parent}/secret")):
        (root / f"l{number}").symlink_to(target)
        (root / f"d{number}").symlink_to(target.rpartition("/")[0])
        for path in (f"/l{number}", f"/d{number}/secret"):
            assert SECRET.encode() not in (await get(app, path))[2]
            for headers in ({}, {"write": "append"}, {"type": "directory"}, {"type": "symlink"}):
                await post(app, path, b"evil", **headers)
            await app.call("DELETE", f"{FILES}?path={path}")
    assert (root.parent / "secret").read_text() == SECRET


async def test_a_client_that_stands_still_is_left(app: Any, root: Path, monkeypatch: pytest.MonkeyPatch, until: Any) -> None:
    monkeypatch.setattr(files, "CLIENT_SECONDS", 0.1)
    os.truncate(root / "etc/hosts", 64 << 20)
    reader, writer = await asyncio.open_unix_connection(str(app.paths.socket), limit=1000)
    writer.write(f"POST {FILES}?path=/up HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nsome".encode())
    assert (await asyncio.wait_for(reader.read(200), 30)).startswith(b"HTTP/1.1 400 ")
    writer.close()
    reader, writer = await asyncio.open_unix_connection(str(app.paths.socket), limit=1000)
    writer.write(f"GET {FILES}?path=/etc/hosts HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert (await reader.read(100)).startswith(b"HTTP/1.1 200 ")
    ends = select.poll()
    ends.register(writer.get_extra_info("socket"), 0)
    await until(lambda: ends.poll(0) == [(writer.get_extra_info("socket").fileno(), select.POLLHUP)])
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await asyncio.wait_for(reader.readexactly(64 << 20), 30)
    writer.close()


@BOTH
async def test_a_client_that_vanishes_leaves_nothing(app: Any, root: Path, until: Any) -> None:
    (root / "big").write_bytes(bytes(64 << 20))
    await get(app, "/etc/hosts")
    before = len(os.listdir("/proc/self/fd"))
    for request in (
        f"GET {FILES}?path=/big HTTP/1.1\r\nHost: x\r\n\r\n",
        f"POST {FILES}?path=/up HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nsome",
        f"POST {FILES}?path=/up HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        "GET /1.0/instances/c1/sftp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: sftp\r\n\r\n",
    ):
        reader, writer = await asyncio.open_unix_connection(str(app.paths.socket))
        writer.write(request.encode())
        if not request.startswith("POST"):
            await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        writer.transport.abort()
    await until(lambda: len(os.listdir("/proc/self/fd")) <= before)
    assert await post(app, "/after", b"x") == (200, "")  # and the instance is not held any more
    await app.set_state("c1", "restart", force=True) if (await app.get("/1.0/instances/c1"))["status"] == "Running" else None


async def test_a_start_waits_for_what_is_under_way(app: Any, until: Any) -> None:
    await app.create("c1")
    going = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"one"
        await going.wait()
        yield b"two"

    pushing = asyncio.create_task(post(app, "/f", body()))
    await until(lambda: os.access(app.paths.pools / "pool/containers/c1/rootfs/f", os.F_OK))
    starting = asyncio.create_task(app.set_state("c1", "start"))
    await asyncio.sleep(0.1)
    assert not starting.done()
    going.set()
    await asyncio.gather(pushing, starting)
    assert (await get(app, "/f"))[2] == b"onetwo"


async def test_a_list_has_a_limit(app: Any, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "MAX_NAMES", 100)
    for number in range(100):
        (root / "etc" / f"file{number}").touch()
    assert (await app.refused("GET", f"{FILES}?path=/etc"))[0] == 413


async def test_sftp(app: Any, root: Path) -> None:
    reader, writer = await asyncio.open_unix_connection(str(app.paths.socket))
    writer.write(b"GET /1.0/instances/c1/sftp HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: sftp\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ") and b"Upgrade: sftp\r\n" in head
    writer.write(struct.pack(">IBI", 5, 1, 3))
    (size,) = struct.unpack(">I", await reader.readexactly(4))
    assert (await reader.readexactly(size))[:5] == struct.pack(">BI", 2, 3)
    path = b"/etc/hosts"
    writer.write(struct.pack(">IBII", 9 + len(path), 17, 7, len(path)) + path)
    (size,) = struct.unpack(">I", await reader.readexactly(4))
    answer = await reader.readexactly(size)
    assert answer[:5] == struct.pack(">BI", 105, 7)
    assert struct.unpack(">Q", answer[9:17])[0] == len((root / "etc/hosts").read_text())
    writer.write(b"nonsense" * 100)
    assert await asyncio.wait_for(reader.read(), 30) == b""
    writer.close()


@pytest.mark.parametrize("headers", [{}, {"Upgrade": "websocket", "Connection": "Upgrade"}])
async def test_sftp_needs_an_upgrade(app: Any, headers: dict[str, str]) -> None:
    await app.create("c1")
    assert await app.refused("GET", "/1.0/instances/c1/sftp", headers=headers) == (400, "Missing or invalid upgrade header")


async def test_instances_that_are_not_there(app: Any) -> None:
    for method, path in (("GET", "files?path=/x"), ("POST", "files?path=/x"), ("DELETE", "files?path=/x")):
        assert await app.refused(method, f"/1.0/instances/nope/{path}") == (404, "Instance not found")
    headers = {"Upgrade": "sftp", "Connection": "Upgrade"}
    assert await app.refused("GET", "/1.0/instances/nope/sftp", headers=headers) == (404, "Instance not found")


async def test_a_file_that_shrinks_breaks_the_answer_off(app: Any, root: Path) -> None:
    (root / "big").touch()
    os.truncate(root / "big", 1 << 40)
    async with app.session.get(FILES, params={"path": "/big"}) as answer:
        await answer.content.readany()
        os.truncate(root / "big", 0)
        with pytest.raises(aiohttp.ClientError):
            while await answer.content.readany():
                pass
