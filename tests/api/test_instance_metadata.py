"""Image metadata and templates of instances."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

BASE = "/1.0/instances/c1/metadata"
TEMPLATES = f"{BASE}/templates"
YAML = """
architecture: x86_64
creation_date: 1424284563
properties: {os: Busybox, serial: 0755}
templates:
  /etc/hostname: {when: [create, copy], template: hostname.tpl}
"""
SECRET = "the host's"


@pytest.fixture
async def data(app: Any) -> Path:
    """The folder of an instance `c1` of an image with one template. Beside it is what nobody may see."""
    await app.create("c1")
    folder: Path = app.paths.pools / "pool/containers/c1"
    (folder / "templates").mkdir(parents=True)
    (folder / "metadata.yaml").write_text(YAML)
    (folder / "templates/hostname.tpl").write_text("{{ instance.name }}\n")
    (folder.parent / "secret").write_text(SECRET)
    return folder


async def text(app: Any, name: str) -> tuple[int, bytes]:
    async with app.session.get(TEMPLATES, params={"path": name}) as answer:
        return answer.status, await answer.read()


async def test_shown_replaced_and_patched(app: Any, data: Path) -> None:
    events = await app.events("?type=lifecycle")
    shown = await app.get(BASE)
    template = {"when": ["create", "copy"], "create_only": False, "template": "hostname.tpl", "properties": {}}
    assert shown == {
        "architecture": "x86_64",
        "creation_date": 1424284563,
        "expiry_date": 0,
        "properties": {"os": "Busybox", "serial": "0755"},
        "templates": {"/etc/hostname": template},
    }
    tag = await app.etag(BASE)
    await app.do("PATCH", BASE, {"properties": {"os": "BB"}, "expiry_date": 5}, headers={"If-Match": tag})
    assert await app.get(BASE) == {**shown, "expiry_date": 5, "properties": {"os": "BB", "serial": "0755"}}
    for method in ("PUT", "PATCH"):
        assert (await app.refused(method, BASE, shown, headers={"If-Match": tag}))[0] == 412
    await app.do("PUT", BASE, {**shown, "properties": None, "templates": None})
    assert await app.get(BASE) == {**shown, "properties": {}, "templates": {}}
    assert yaml.safe_load((data / "metadata.yaml").read_text())["creation_date"] == 1424284563
    told = [(await events.receive_json(timeout=30))["metadata"] for _ in range(3)]
    assert [each["action"].removeprefix("instance-metadata-") for each in told] == ["retrieved", "retrieved", "updated"]
    await events.close()


async def test_an_instance_without_metadata_gets_some(app: Any, data: Path) -> None:
    (data / "metadata.yaml").unlink()
    empty = {"architecture": "", "creation_date": 0, "expiry_date": 0, "properties": {}, "templates": {}}
    assert await app.get(BASE) == empty
    await app.do("PATCH", BASE, {"properties": {"os": "x"}})
    written = await app.get(BASE)
    assert written["properties"] == {"os": "x"} and written["architecture"]
    await app.do("PUT", BASE, {})
    assert (await app.get(BASE))["properties"] == {}


BAD = [
    {"architecture": "\n"},
    {"creation_date": -1},
    {"creation_date": "soon"},
    {"properties": {"os": "a\0b"}},
    {"properties": {"os": 1}},
    {"templates": {"etc/x": {"template": "x.tpl"}}},
    {"templates": {"/../x": {"template": "x.tpl"}}},
    {"templates": {"/x": {"template": "../x"}}},
    {"templates": {"/x": {"template": ""}}},
    {"templates": {"/x": {"template": "x.tpl", "when": "create"}}},
    {"properties": {str(number): "x" for number in range(11_000)}},
    [],
]


async def test_what_no_start_could_read_is_not_written(app: Any, data: Path) -> None:
    for body in BAD:
        for method in ("PUT", "PATCH"):
            assert (await app.refused(method, BASE, body))[0] == 400, body
    assert (data / "metadata.yaml").read_text() == YAML


async def test_templates(app: Any, data: Path) -> None:
    assert await app.get(TEMPLATES) == ["hostname.tpl"]
    assert await text(app, "hostname.tpl") == (200, b"{{ instance.name }}\n")
    for content in (b"", b"new\xff"):
        async with app.session.post(f"{TEMPLATES}?path=my.tpl", data=content) as answer:
            assert answer.status == 200
        assert await text(app, "my.tpl") == (200, content)
    assert await app.get(TEMPLATES) == ["hostname.tpl", "my.tpl"]
    await app.do("DELETE", f"{TEMPLATES}?path=my.tpl")
    assert await app.refused("DELETE", f"{TEMPLATES}?path=my.tpl") == (404, 'Template "my.tpl" not found')
    assert await app.refused("GET", f"{TEMPLATES}?path=my.tpl") == (404, 'Template "my.tpl" not found')
    async with app.session.post(f"{TEMPLATES}?path=big.tpl", data=bytes(300 << 10)) as answer:
        assert answer.status == 413
    for method in ("POST", "DELETE"):
        assert await app.refused(method, TEMPLATES) == (400, "missing path argument")
    os.rename(data / "templates", data / "gone")
    assert await app.get(TEMPLATES) == []
    await app.do("POST", f"{TEMPLATES}?path=first.tpl")
    assert sorted(os.listdir(data / "templates")) == ["first.tpl"]


NAMES = ["..", ".", ".hidden", "../secret", "../metadata.yaml", "a/b", "/abs", "a\nb", "a\0b", "-rf", "x" * 300]


async def test_names_of_templates_stay_inside(app: Any, data: Path) -> None:
    """M-NAME."""
    before = sorted(os.listdir(data / "templates"))
    for name in NAMES:
        for method in ("GET", "POST", "DELETE"):
            status, error = await app.refused(method, TEMPLATES, params={"path": name})
            assert status == 400, (name, error)
    assert sorted(os.listdir(data / "templates")) == before and (data / "metadata.yaml").read_text() == YAML
    assert (data.parent / "secret").read_text() == SECRET


@pytest.mark.parametrize("target", ["../secret", "{data}/secret"])
async def test_links_are_not_followed(app: Any, data: Path, target: str) -> None:
    """M-SYM: a template, the folder of templates and metadata.yaml as links, which an image could have brought."""
    target = target.format(data=data.parent)
    (data / "templates/l.tpl").symlink_to(f"../{target}" if target.startswith("..") else target)
    os.mkfifo(data / "templates/fifo.tpl")
    assert await app.get(TEMPLATES) == ["hostname.tpl"]
    for name in ("l.tpl", "fifo.tpl"):
        assert (await app.refused("GET", f"{TEMPLATES}?path={name}"))[0] == 400
    await app.do("POST", f"{TEMPLATES}?path=l.tpl")
    assert not (data / "templates/l.tpl").is_symlink() and (data.parent / "secret").read_text() == SECRET
    (data / "metadata.yaml").unlink()
    (data / "metadata.yaml").symlink_to(target)
    for method in ("GET", "PUT", "PATCH"):
        assert (await app.refused(method, BASE, {} if method != "GET" else None))[0] == 400
    os.rename(data / "templates", data / "gone")
    (data / "templates").symlink_to(os.path.dirname(target) or ".")
    for method in ("GET", "POST", "DELETE"):
        assert (await app.refused(method, f"{TEMPLATES}?path=secret"))[0] == 400
    assert (data.parent / "secret").read_text() == SECRET


NO_METADATA = [b"", b"[1]", b"&a [*a, *a]", b"a: " * 5000, b"\xff", b"architecture: []", b"x" * (2 << 20)]


async def test_metadata_that_is_none_is_told(app: Any, data: Path) -> None:
    for content in NO_METADATA:
        (data / "metadata.yaml").write_bytes(content)
        assert (await app.refused("GET", BASE))[0] in (400, 413)
