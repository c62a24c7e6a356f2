"""GET / and /1.0, and the server's configuration."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from atoll.db import settings as rows
from atoll.domain.caller import DAEMON
from atoll.domain.errors import BadRequest, Conflict
from atoll.host import passwords
from atoll.services.proxies import Proxies
from atoll.services.settings import PASSWORD, Changes


async def test_the_versions(server: Any) -> None:
    assert (await (await server.unix())("GET", "/")).metadata == ["/1.0"]


async def test_an_administrator_sees_everything(server: Any) -> None:
    shown = (await (await server.unix())("GET", "/1.0")).metadata
    assert shown["auth"] == "trusted"
    assert shown["config"] == {}
    assert shown["auth_methods"] == ["tls"]
    assert shown["public"] is False
    environment = shown["environment"]
    assert environment["server"] == "lxd"
    assert environment["server_version"] == "5.0.2"
    assert environment["project"] == "default"
    assert environment["addresses"] == []
    assert environment["certificate"].startswith("-----BEGIN CERTIFICATE-----")
    assert len(environment["certificate_fingerprint"]) == 64
    assert environment["storage"] == "dir"
    assert {"Name": "overlay", "Version": "1", "Remote": False} in environment["storage_supported_drivers"]
    assert environment["lxc_features"] == {"pidfd": "true"}
    assert environment["driver"] == "lxc"
    assert environment["atoll_version"]


async def test_the_fields_are_those_of_the_specification(server: Any) -> None:
    environment = (await (await server.unix())("GET", "/1.0")).metadata["environment"]
    expected = """addresses architectures certificate certificate_fingerprint driver driver_version firewall kernel
    kernel_architecture kernel_features kernel_version lxc_features os_name os_version project server server_clustered
    server_event_mode server_name server_pid server_version storage storage_supported_drivers storage_version"""
    assert set(environment) == {*expected.split(), "atoll_version"}


async def test_the_environment_follows_what_changes(server: Any) -> None:
    client = await server.unix()
    assert (await client("GET", "/1.0")).metadata["environment"]["storage"] == "dir"
    server.pools += ["overlay", "dir"]
    environment = (await client("GET", "/1.0?project=blue")).metadata["environment"]
    assert (environment["storage"], environment["storage_version"]) == ("dir | overlay", "1 | 1")
    assert environment["project"] == "blue"
    address = await server.listen()
    assert (await client("GET", "/1.0")).metadata["environment"]["addresses"] == [address]


async def test_a_stranger_sees_hardly_anything(server: Any, make_certificate: Any) -> None:
    await server.listen()
    for certificate in (None, make_certificate()):
        shown = (await (await server.https(certificate))("GET", "/1.0")).metadata
        assert set(shown) == {"api_extensions", "api_status", "api_version", "auth", "public", "auth_methods"}
        assert shown["auth"] == "untrusted"
        refused = await (await server.https(certificate))("PATCH", "/1.0", {"config": {"user.a": "b"}})
        assert refused.status == 403


async def test_put_replaces_and_patch_merges(server: Any) -> None:
    client = await server.unix()
    await client(
        "PUT", "/1.0", {"config": {"user.a": "1", "images.auto_update_interval": 3, "core.https_allowed_credentials": True}}
    )
    assert server.settings.get("images.auto_update_interval") == 3
    await client("PATCH", "/1.0", {"config": {"user.b": "2", "user.a": "", "core.https_allowed_credentials": None}})
    assert (await client("GET", "/1.0")).metadata["config"] == {"images.auto_update_interval": "3", "user.b": "2"}
    await client("PUT", "/1.0", {"config": {"user.c": "3"}})
    assert (await client("GET", "/1.0")).metadata["config"] == {"user.c": "3"}
    assert server.settings.get("images.auto_update_interval") == 6
    assert await server.actions() == [("config-updated", "/1.0")] * 3


@pytest.mark.parametrize(
    ("config", "word"),
    [
        ({"core.nonsense": "1"}, "cannot set 'core.nonsense' to '1': unknown key"),
        ({"core.nonsense": ""}, "cannot set 'core.nonsense' to '': unknown key"),
        ({"core.https_address": "1:2:x"}, "core.https_address"),
        ({"images.auto_update_interval": "often"}, "images.auto_update_interval"),
        ({"user.a": ["list"]}, "user.a"),
        ({"user.a": {"b": "c"}}, "user.a"),
        ({"core.proxy_http": "a\nb"}, "core.proxy_http"),
        ({"candid.api.url": "https://a", "rbac.api.url": "https://b"}, "exclusive"),
    ],
)
async def test_what_is_not_valid_is_refused_whole(server: Any, config: dict[str, Any], word: str) -> None:
    client = await server.unix()
    for method in ("PUT", "PATCH"):
        answer = await client(method, "/1.0", {"config": {"user.good": "1", **config}})
        assert answer.status == 400
        assert word in answer.error
    assert server.settings.shown() == {}


async def test_an_etag_guards_against_lost_updates(server: Any) -> None:
    client = await server.unix()
    tag = (await client("GET", "/1.0")).headers["ETag"]
    assert (await client("PUT", "/1.0", {"config": {"user.a": "1"}}, If_Match=tag)).status == 200
    assert (await client("PUT", "/1.0", {"config": {"user.a": "2"}}, If_Match=tag)).status == 412
    newer = (await client("GET", "/1.0")).headers["ETag"]
    assert newer != tag
    assert (await client("PATCH", "/1.0", {"config": {"user.a": "2"}}, If_Match=newer)).status == 200


async def test_the_password_is_stored_hashed_and_never_shown(server: Any) -> None:
    client = await server.unix()
    await client("PATCH", "/1.0", {"config": {PASSWORD: "sesame"}})
    shown = (await client("GET", "/1.0")).metadata["config"]
    assert shown == {PASSWORD: True}
    async with server.global_db.read() as tx:
        stored = (await rows.load(tx))[PASSWORD]
    assert "sesame" not in stored
    assert passwords.verify(stored, "sesame")
    assert (await client("PUT", "/1.0", {"config": {**shown, "user.a": "b"}})).status == 200
    assert server.settings.text(PASSWORD) == stored
    await client("PUT", "/1.0", {"config": {}})
    assert server.settings.shown() == {}


async def test_local_keys_are_in_the_local_database_and_all_survive(server: Any) -> None:
    address = await server.listen()
    await (await server.unix())("PATCH", "/1.0", {"config": {"user.a": "1"}})
    async with server.local_db.read() as tx:
        assert await rows.load(tx) == {"core.https_address": address}
    async with server.global_db.read() as tx:
        assert await rows.load(tx) == {"user.a": "1"}
    await server.settings.load()
    assert server.settings.shown() == {"core.https_address": address, "user.a": "1"}


async def test_stored_rows_that_are_not_valid_are_passed_over(server: Any) -> None:
    async with server.global_db.write() as tx:
        await rows.store(tx, {"user.a": "1", "core.gone": "x", "cluster.max_voters": "many", "core.https_address": ":1"})
    await server.settings.load()
    assert server.settings.shown() == {"user.a": "1"}


async def test_a_subscriber_can_refuse_and_those_before_it_undo(server: Any) -> None:
    seen: list[str] = []

    @contextlib.asynccontextmanager
    async def careful(changes: Changes) -> AsyncIterator[None]:
        seen.append(f"did {dict(changes)}")
        try:
            yield
        except Conflict:
            seen.append("undone")
            raise

    async def refuse(changes: Changes) -> None:
        raise Conflict("no")

    server.settings.around_change("user.", careful)
    server.settings.on_change("core.proxy", refuse)
    with pytest.raises(Conflict):
        await server.settings.patch({"user.a": "1", "core.proxy_http": "http://x"}, caller=DAEMON)
    assert seen == ["did {'user.a': '1'}", "undone"]
    assert server.settings.shown() == {}
    await server.settings.patch({"user.a": "1"}, caller=DAEMON)
    assert server.settings.get("user.a") == "1"


async def test_candid_is_told_of_when_it_is_set_up(server: Any) -> None:
    client = await server.unix()
    await client("PATCH", "/1.0", {"config": {"candid.api.url": "https://candid.example"}})
    assert (await client("GET", "/1.0")).metadata["auth_methods"] == ["tls", "candid"]


async def test_a_project_name_that_is_none_is_refused(server: Any) -> None:
    assert (await (await server.unix())("GET", "/1.0?project=a%2Fb")).status == 400


async def test_settings_of_an_unknown_type(server: Any) -> None:
    with pytest.raises(BadRequest):
        await server.settings.patch({"user.x": 1.5}, caller=DAEMON)


async def test_proxies_are_in_the_environment_of_programs(server: Any) -> None:
    environment = {"HTTP_PROXY": "http://inherited"}
    Proxies(server.settings, environment)
    assert environment["http_proxy"] == "http://inherited"
    await server.settings.patch({"core.proxy_http": "http://set", "core.proxy_ignore_hosts": "a,b"}, caller=DAEMON)
    assert (environment["http_proxy"], environment["no_proxy"]) == ("http://set", "a,b")
    await server.settings.replace({}, caller=DAEMON)
    assert (environment["http_proxy"], "no_proxy" in environment) == ("http://inherited", False)
