"""Images between Atoll and LXD 5.0: from a tree that Atoll wrote, and sent by either to the other in every mode."""

from __future__ import annotations

import ipaddress
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import lxd_server  # found through conftest's path
import pytest
from box import Daemon, kill_boxed, wait_until
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from lxd_server import Lxd

pytestmark = [pytest.mark.system, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]

TREE_PORT = 9443
SERVE = """
import functools, http.server, ssl, sys
port, folder, certificate = int(sys.argv[1]), sys.argv[2], sys.argv[3]
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=folder)
server = http.server.ThreadingHTTPServer(("127.0.0.1", port), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(certificate)
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp(prefix="atoll-system-"))
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def authority(folder: Path) -> Path:
    """A file with the certificate of a server on loopback, which is its own authority, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "tree")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
        .serial_number(x509.random_serial_number()).not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1)).add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )  # fmt: skip
    pem, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    path = folder / "tree.pem"
    path.write_bytes(key.private_bytes(pem, form, serialization.NoEncryption()) + certificate.public_bytes(pem))
    return path


@pytest.fixture(scope="module")
def lxd(daemon: Daemon, folder: Path, authority: Path) -> Iterator[Lxd]:
    """LXD in the daemon's box, which believes that authority; clients of the daemon know both by HTTPS, as a and l."""
    if lxd_server.PROGRAM is None:
        pytest.skip("LXD is not installed")
    with lxd_server.running(folder, daemon.box, {"SSL_CERT_FILE": str(authority)}) as server:
        server.run("lxc", "config", "set", "core.https_address", "127.0.0.1:8444")
        server.run("lxc", "config", "set", "core.trust_password", "secret")
        daemon.run("atoll", "config", "set", "core.https_address", "127.0.0.1:8443")
        daemon.run("atoll", "config", "set", "core.trust_password", "secret")
        for name, port in (("a", 8443), ("l", 8444)):
            daemon.run("lxc", "remote", "add", name, f"127.0.0.1:{port}", "--accept-certificate", "--password", "secret")
        yield server


@pytest.fixture
def tree(daemon: Daemon, folder: Path, authority: Path) -> Iterator[Path]:
    """An empty folder that is served."""
    path = folder / "tree"
    path.mkdir()
    argv = daemon.box.enter([sys.executable, "-c", SERVE, str(TREE_PORT), str(path), str(authority)])
    process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    probe = ["bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{TREE_PORT}"]
    try:
        wait_until(lambda: daemon.try_(*probe).returncode == 0, "the tree is served")
        yield path
    finally:
        kill_boxed(process)


def fingerprints(daemon: Daemon, remote: str) -> list[str]:
    """Of the images that a remote has."""
    return sorted(image["fingerprint"] for image in json.loads(daemon.run("lxc", "image", "list", remote, "--format", "json")))


def test_lxd_starts_machines_from_a_tree_of_ours(daemon: Daemon, lxd: Lxd, tree: Path, folder: Path) -> None:
    split = folder / "split"
    (split / "root").mkdir(parents=True)
    daemon.run("atoll", "image", "export", "tiny", str(split / "tiny"))
    (whole,) = split.glob("tiny.*")
    daemon.run("tar", "-C", str(split / "root"), "-xf", str(whole))
    daemon.run("tar", "-C", str(split / "root"), "-cJf", str(split / "meta.tar.xz"), "metadata.yaml")
    daemon.run("mksquashfs", str(split / "root/rootfs"), str(split / "root.squashfs"), "-quiet", "-no-progress")
    daemon.run("atoll", "image", "import", str(split / "meta.tar.xz"), str(split / "root.squashfs"), "--alias", "split/1")
    daemon.run("atoll", "image", "serve-tree", str(tree), "tiny", "split/1")
    daemon.run("atoll", "image", "tree", "verify", str(tree))

    lxd.run("lxc", "remote", "add", "tree", f"https://127.0.0.1:{TREE_PORT}", "--protocol", "simplestreams")
    listed = json.loads(lxd.run("lxc", "image", "list", "tree:", "--format", "json"))
    assert sorted(image["fingerprint"] for image in listed) == fingerprints(daemon, "local:")
    daemon.run("atoll", "image", "delete", "split/1")
    lxd.run("lxc", "launch", "tree:tiny", "c1")
    assert lxd.run("lxc", "exec", "c1", "--", "sh", "-c", "echo it lives").strip() == "it lives"
    lxd.run("lxc", "init", "tree:split/1", "c2")
    assert "Busybox" in lxd.run("lxc", "config", "metadata", "show", "c2")
    for name in ("c1", "c2"):
        lxd.run("lxc", "delete", "--force", name)


@pytest.mark.parametrize(("program", "modes"), [("lxc", ("push", "relay")), ("atoll", ("pull", "push", "relay"))])
def test_every_mode_between_both(daemon: Daemon, lxd: Lxd, program: str, modes: tuple[str, ...]) -> None:
    (tiny,) = fingerprints(daemon, "a:")
    known = fingerprints(daemon, "l:")
    for mode in modes:
        if tiny in known:
            daemon.run("lxc", "image", "delete", f"l:{tiny}")
        daemon.run(program, "image", "copy", f"a:{tiny}", "l:", "--mode", mode, "--copy-aliases", "--public")
        (there,) = json.loads(daemon.run("lxc", "image", "list", "l:", tiny, "--format", "json"))
        assert (there["aliases"][0]["name"], there["public"]) == ("tiny", True)
        daemon.run("lxc", "image", "delete", f"a:{tiny}")
        daemon.run(program, "image", "copy", f"l:{tiny}", "a:", "--mode", mode, "--alias", "tiny")
        assert fingerprints(daemon, "a:") == [tiny]
        known = [tiny]
    assert daemon.query(f"/1.0/images/{tiny}")["public"] is False
