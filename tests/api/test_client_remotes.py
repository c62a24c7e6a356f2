"""The client and servers it reaches by HTTPS: being let in, the pin, and the list of remotes. The client is a real process."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import stat
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[2] / "src"
PASSWORD = "let me in"


class Client:
    """`atoll` with a configuration of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def run(self, *words: str, stdin: str = "") -> tuple[int, str, str]:
        """(exit status, what it printed, what it complained of)"""
        code = f"import sys; sys.path.insert(0, {str(SOURCE)!r}); from atoll.cli.main import run; sys.exit(run(sys.argv[1:]))"
        environment = {"ATOLL_CONF": str(self.folder), "HOME": "/nonexistent", "PATH": "/usr/bin:/bin"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-Ic", code, *words, env=environment,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, err = await asyncio.wait_for(process.communicate(stdin.encode()), 30)
        return process.returncode or 0, out.decode(), err.decode()

    async def must(self, *words: str) -> str:
        status, out, err = await self.run(*words)
        assert status == 0, err
        return out

    async def refused(self, *words: str, stdin: str = "") -> str:
        status, _, err = await self.run(*words, stdin=stdin)
        assert status == 1
        assert "Traceback" not in err
        return err

    async def names(self) -> list[str]:
        return sorted(json.loads(await self.must("remote", "list", "--format", "json")))


@pytest.fixture
def client(tmp_path: Path) -> Client:
    return Client(tmp_path / "client")


@pytest.fixture
async def address(app: Any) -> AsyncIterator[str]:
    """Where the server listens; it has a password."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    await app.do("PATCH", "/1.0", {"config": {"core.https_address": address, "core.trust_password": PASSWORD}})
    yield address


async def token(app: Any, address: str, **grant: Any) -> str:
    """A token, made into text as `config trust add` does."""
    _, content = await app.call("POST", "/1.0/certificates", {"token": True, "type": "client", "name": "laptop", **grant})
    about = content["metadata"]["metadata"]
    text = {"client_name": "laptop", "fingerprint": about["fingerprint"], "addresses": [address], "secret": about["secret"],
            "expires_at": about["expiresAt"]}  # fmt: skip
    return base64.b64encode(json.dumps(text).encode()).decode()


async def test_let_in_by_password(app: Any, address: str, client: Client) -> None:
    await client.must("remote", "add", "box", address, "--accept-certificate", "--password", PASSWORD)
    assert "box" in await client.names()
    assert json.loads(await client.must("query", "box:/1.0"))["auth"] == "trusted"
    for name in ("client.key", "client.crt", "config.yml", "servercerts/box.crt"):
        assert stat.S_IMODE((client.folder / name).stat().st_mode) == 0o600
    entries = await app.get("/1.0/certificates?recursion=1")
    assert [entry["type"] for entry in entries] == ["client"]


async def test_a_wrong_password_leaves_nothing(address: str, client: Client) -> None:
    await client.refused("remote", "add", "box", address, "--accept-certificate", "--password", "guess")
    assert await client.names() == ["images", "local"]
    assert not list((client.folder / "servercerts").iterdir())


async def test_a_token_names_server_and_remote(app: Any, address: str, client: Client) -> None:
    await client.must("remote", "add", await token(app, address))
    assert json.loads(await client.must("query", "laptop:/1.0"))["auth"] == "trusted"


async def test_a_token_of_another_server_is_not_sent(app: Any, address: str, client: Client) -> None:
    raw = json.loads(base64.b64decode(await token(app, address)))
    raw["fingerprint"] = "0" * 64
    text = base64.b64encode(json.dumps(raw).encode()).decode()
    assert "another certificate" in await client.refused("remote", "add", "box", text)
    assert await app.get("/1.0/certificates") == []


async def test_a_restricted_client_uses_the_project_it_may(app: Any, address: str, client: Client) -> None:
    await app.do("POST", "/1.0/projects", {"name": "blue", "config": {}})
    await client.must("remote", "add", "box", await token(app, address, restricted=True, projects=["blue"]))
    assert "project: blue" in (client.folder / "config.yml").read_text()
    assert await client.must("list", "box:", "--format", "csv") == ""


async def test_a_changed_certificate_is_noticed_before_anything_is_sent(
    app: Any, address: str, client: Client, make_certificate: Any
) -> None:
    await client.must("remote", "add", "box", address, "--accept-certificate", "--password", PASSWORD)
    other = make_certificate(name="other")
    (client.folder / "servercerts" / "box.crt").write_bytes(other.certificate.read_bytes())
    assert "is not the one this client knows" in await client.refused("list", "box:")


async def test_the_fingerprint_is_asked_about(app: Any, address: str, client: Client) -> None:
    fingerprint = (await app.get("/1.0"))["environment"]["certificate_fingerprint"]
    assert "NACKed" in await client.refused("remote", "add", "box", address, "--password", PASSWORD, stdin="no\n")
    status, out, _ = await client.run("remote", "add", "box", address, "--password", PASSWORD, stdin=f"{fingerprint}\n")
    assert status == 0
    assert f"Certificate fingerprint: {fingerprint}" in out


async def test_rename_switch_and_remove(address: str, client: Client) -> None:
    await client.must("remote", "add", "box", address, "--accept-certificate", "--password", PASSWORD)
    await client.must("remote", "switch", "box")
    await client.must("remote", "rename", "box", "chest")
    assert (await client.must("remote", "get-default")).strip() == "chest"
    assert await client.must("list", "--format", "csv") == ""
    assert "default remote" in await client.refused("remote", "remove", "chest")
    await client.must("remote", "switch", "local")
    await client.must("remote", "remove", "chest")
    await client.must("remote", "remove", "images")
    assert await client.names() == ["local"]
    assert not list((client.folder / "servercerts").iterdir())


@pytest.mark.parametrize(
    "words",
    [
        ["a/b", "127.0.0.1"], ["a:b", "127.0.0.1"],
        ["../x", "127.0.0.1"], ["", "127.0.0.1"], ["x", "ftp://127.0.0.1"], ["x", "https://"],
        ["x", "127.0.0.1:99999"], ["x", "127.0.0.1:1"], ["local", "127.0.0.1"], ["x", "127.0.0.1", "--protocol", "gopher"],
    ],
)  # fmt: skip
async def test_bad_remotes(client: Client, words: list[str]) -> None:
    await client.refused("remote", "add", *words, "--accept-certificate", "--password", "x")
    assert await client.names() == ["images", "local"]


@pytest.mark.parametrize("verb", [["remove"], ["rename", "x"], ["set-url", "127.0.0.1"]])
async def test_the_local_remote_stays(client: Client, verb: list[str]) -> None:
    assert "static" in await client.refused("remote", verb[0], "local", *verb[1:])


async def test_addresses_that_need_no_server(client: Client) -> None:
    await client.must("remote", "add", "here", "/run/x/unix.socket")
    await client.must("remote", "add", "img", "images.example.org", "--protocol", "simplestreams")
    await client.must("remote", "set-url", "here", "unix:///run/y/unix.socket")
    listed = json.loads(await client.must("remote", "list", "--format", "json"))
    assert listed["here"]["Addr"] == "unix:///run/y/unix.socket"
    assert (listed["img"]["Addr"], listed["img"]["Protocol"]) == ("https://images.example.org", "simplestreams")
    assert listed["local"] == {
        "Addr": "unix://", "AuthType": "", "Domain": "", "Project": "", "Protocol": "",
        "Public": False, "Global": False, "Static": True,
    }  # fmt: skip
    text = await client.must("remote", "list", "--format", "yaml")
    assert "here:\n  addr: unix:///run/y/unix.socket\n  public: false\n" in text


async def test_a_server_of_the_own_authority_needs_no_asking(
    app: Any, client: Client, authority: Any, make_certificate: Any, state_dir: Path
) -> None:
    signed = make_certificate(name="server", signer=authority, hosts=("127.0.0.1",))
    certificate, key = app.paths.server_certificate
    signed.key.replace(key)
    signed.certificate.replace(certificate)
    await app.daemon.tls.reload_if_changed()
    with socket.create_server(("127.0.0.1", 0)) as sock:
        address = f"127.0.0.1:{sock.getsockname()[1]}"
    await app.do("PATCH", "/1.0", {"config": {"core.https_address": address}})
    assert "NACKed" in await client.refused("remote", "add", "box", address, "--public", stdin="no\n")
    client.folder.mkdir(exist_ok=True)
    (client.folder / "client.ca").write_bytes((state_dir / "server.ca").read_bytes())
    await client.must("remote", "add", "box", address, "--public")
    assert not (client.folder / "servercerts/box.crt").exists(), "its authority is what is known of it"
    assert json.loads(await client.must("query", "box:/1.0"))["auth"] == "untrusted"


async def test_only_certificates_log_in(address: str, client: Client) -> None:
    assert "tls" in await client.refused("remote", "add", "box", address, "--auth-type", "candid")
    await client.must("remote", "add", "box", address, "--accept-certificate", "--password", PASSWORD, "--auth-type", "tls")
    assert "auth_type: tls" in await client.must("remote", "list", "--format", "yaml")
