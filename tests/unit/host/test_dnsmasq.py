"""The writer of dnsmasq's configuration and the reader of its leases."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atoll.domain.errors import BadRequest
from atoll.host import dnsmasq

LEASES = """\
1795334400 00:16:3e:11:22:33 10.1.2.3 c1 01:00:16:3e:11:22:33
0 00:16:3e:44:55:66 10.1.2.4 * *
duid 00:01:00:01:2c:aa:bb:cc:00:16:3e:00:00:01
1795334400 16909060 fd42::77 c1 00:03:00:01:00:16:3e:11:22:33
1795334400 00:16:3e:77
"""


@pytest.mark.parametrize("value", ["a\nuser=root", "a\rb", "a\0b", 'a"b', "a\\b", "a\x7fb"])
def test_values_cannot_break_out(value: str) -> None:
    with pytest.raises(BadRequest):
        dnsmasq.option("domain", value)
    with pytest.raises(BadRequest):
        dnsmasq.host_line("00:16:3e:00:00:01", hostname=value)


@pytest.mark.parametrize("value", ["c1,set:x", "a,10.0.0.1"])
def test_reservation_cannot_gain_a_field(value: str) -> None:
    with pytest.raises(BadRequest):
        dnsmasq.host_line("00:16:3e:00:00:01", hostname=value)


@given(st.text(max_size=40))
def test_an_option_is_one_line_or_refused(value: str) -> None:
    try:
        line = dnsmasq.option("domain", value)
    except BadRequest:
        return
    assert line == f"domain={value}"
    assert "\n" not in line


def test_reservation_line() -> None:
    line = dnsmasq.host_line("00:16:3e:00:00:01", ipv4="10.0.0.5", ipv6="fd42::5", hostname="c1")
    assert line == "00:16:3e:00:00:01,10.0.0.5,[fd42::5],c1\n"


def test_raw_lines_end_in_a_newline_and_hold_no_nul() -> None:
    assert dnsmasq.raw_lines("") == ""
    assert dnsmasq.raw_lines("log-dhcp\n\n") == "log-dhcp\n"
    with pytest.raises(BadRequest):
        dnsmasq.raw_lines("a\0")


def test_leases_of_both_families_are_read_and_half_lines_passed_over() -> None:
    found = dnsmasq.parse_leases(LEASES)
    assert found.server_duid == "00:01:00:01:2c:aa:bb:cc:00:16:3e:00:00:01"
    assert [(line.client, line.address, line.hostname) for line in found.lines] == [
        ("00:16:3e:11:22:33", "10.1.2.3", "c1"),
        ("00:16:3e:44:55:66", "10.1.2.4", ""),
        ("", "fd42::77", "c1"),
    ]
    assert found.lines[2].iaid == 16909060


@given(st.text())
def test_any_leases_file_can_be_read(text: str) -> None:
    dnsmasq.parse_leases(text)


async def test_pid_of_another_process_is_not_taken_for_the_server(tmp_path: Path) -> None:
    server = dnsmasq.Dnsmasq(tmp_path)
    for content in ("", "x", "1", "999999999"):
        (tmp_path / "dnsmasq.pid").write_text(content)
        assert await server.pid() is None
    await server.stop()


async def test_reservations_are_the_files_and_nothing_else(tmp_path: Path) -> None:
    server = dnsmasq.Dnsmasq(tmp_path / "net")
    assert await server.set_hosts({"c1.eth0": "00:16:3e:00:00:01,c1\n", "c2.eth0": "00:16:3e:00:00:02,c2\n"}) == set()
    assert await server.set_hosts({"c2.eth0": "00:16:3e:00:00:02,10.0.0.2,c2\n"}) == {"00:16:3e:00:00:01"}
    assert {path.name: path.read_text() for path in server.hosts.iterdir()} == {"c2.eth0": "00:16:3e:00:00:02,10.0.0.2,c2\n"}
