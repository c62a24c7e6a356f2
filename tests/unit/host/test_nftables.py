"""The firewall writer: what it writes, and that no value can end a word, a line or a quotation."""

from __future__ import annotations

import ipaddress

import pytest

from atoll.domain.errors import BadRequest
from atoll.host.nftables import Chain, Family, Interface, Mac, Table, render, rule

NASTY = ("a\nb", "a\rb", "a\0b", 'a"b', "a'b", "a;b", "a#b", "a b", "$x", "", "x" * 16, "a\\b", "b\N{LINE SEPARATOR}")


@pytest.mark.parametrize("value", NASTY)
def test_values_cannot_break_out(value: str) -> None:
    for word in (Interface(value), Mac(value)):
        with pytest.raises(BadRequest):
            rule("iifname", word)
    with pytest.raises(BadRequest):
        render(Table(Family.INET, value if len(value) < 16 else "0" + value, ()))


@pytest.mark.parametrize("value", ["accept\ndrop", 'oifname "x"', "accept; drop", "accept # x", "accept\0"])
def test_keywords_cannot_hold_another_statement(value: str) -> None:
    with pytest.raises(BadRequest):
        rule(value)


def test_rule_of_typed_words() -> None:
    network = ipaddress.ip_network("10.0.0.0/24")
    assert rule("iifname", Interface("br0"), "ip saddr", network, "udp dport", 53, "accept") == (
        'iifname "br0" ip saddr 10.0.0.0/24 udp dport 53 accept'
    )


def test_table_replaces_itself_in_one_transaction() -> None:
    chains = (
        Chain("check", (rule("ether saddr !=", Mac("00:16:3e:00:00:01"), "drop"),)),
        Chain("ingress", (rule("jump check"),), "filter hook ingress", device=Interface("veth1"), priority=-5),
    )
    assert render(Table(Family.NETDEV, "atoll.nic.veth1", chains)).splitlines() == [
        "table netdev atoll.nic.veth1",
        "delete table netdev atoll.nic.veth1",
        "table netdev atoll.nic.veth1 {",
        "\tchain check {",
        "\t\tether saddr != 00:16:3e:00:00:01 drop",
        "\t}",
        "\tchain ingress {",
        '\t\ttype filter hook ingress device "veth1" priority -5; policy accept;',
        "\t\tjump check",
        "\t}",
        "}",
    ]
