from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from atoll.config import netvalues
from atoll.config.netvalues import AddressRange, Listen, ProxyAddress
from atoll.config.values import ValueType

V4, V6 = "192.0.2.1", "2001:db8::1"


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (netvalues.IPV4, [V4], [V6, "192.0.2", "192.0.2.256", "192.0.2.01", f"{V4}/24", " 192.0.2.1", "auto"]),
        (netvalues.IPV6, [V6, "::"], [V4, "2001:db8::g", "fe80::1%eth0", f"{V6}/64", f"[{V6}]"]),
        (netvalues.IP, [V4, V6], ["localhost", "1"]),
        (netvalues.IPV4_CIDR, ["192.0.2.1/24", "192.0.2.0/32"], [V4, "192.0.2.1/33", "192.0.2.1/255.255.255.0", f"{V6}/64"]),
        (netvalues.IPV6_CIDR, [f"{V6}/64"], [V6, f"{V6}/129", "192.0.2.1/24", f"{V6}/+1"]),
        (netvalues.IPV4_NETWORK, ["192.0.2.0/24", f"{V4}/32"], [f"{V4}/24", "192.0.2.0", "2001:db8::/32"]),
        (netvalues.IPV6_NETWORK, ["2001:db8::/32"], [f"{V6}/64", "192.0.2.0/24"]),
        (netvalues.IPV4_RANGE, ["192.0.2.5-192.0.2.9", V4], ["192.0.2.9-192.0.2.5", "192.0.2.5-", f"{V4}-{V6}"]),
        (netvalues.MAC, ["00:16:3e:AA:bb:01"], ["00:16:3e:aa:bb", "00-16-3e-aa-bb-01", "00:16:3e:aa:bb:0g"]),
        (netvalues.INFINIBAND_MAC, [":".join(["0a"] * 8), ":".join(["0a"] * 20)], [":".join(["0a"] * 6)]),
        (netvalues.INTERFACE, ["eth0", "eth0.100", "br-lan"], ["", "-eth0", ".", "..", "a/b", "e" * 16, "eth 0"]),
        (netvalues.VLAN, ["1", "4094"], ["0", "4095", "-1", "none"]),
        (netvalues.VLAN_IDS, ["3, 4,5", "3,4-6"], ["-1", "4096", "1,2,-3-4", "1,2,4-3", "5,invalid, 6", ""]),
        (netvalues.DHCP_LEASE, ["1h", "3600", "infinite", "2w"], ["1H", "1h2m", "never", "1h,option"]),
        (netvalues.DOMAIN, ["lxd", "a.example.net", "a_b.example."], ["a..b", "-a", "a b", "x" * 64, ".a", "a/b", "a,b"]),
        (netvalues.URL, ["https://example.net:8081", "http://[::1]/x?y"],
         ["ftp://a", "https://", "https://u@h", "a", "https://a b"]),
        (netvalues.MTU, ["68", "1500", "65535"], ["67", "65536", "1500 "]),
        (netvalues.NAME, ["default", "a b"[:1], "größe"], ["", "..", "a/b", "-rf", "a b", "a,b", "x" * 256]),
    ],
)  # fmt: skip
def test_accepts_and_refuses(kind: ValueType, good: list[str], bad: list[str]) -> None:
    for text in good:
        kind.read(text)
    for text in bad:
        with pytest.raises(ValueError):
            kind.read(text)


def test_typed_values() -> None:
    assert netvalues.IPV4.read(V4) == ip_address(V4)
    assert netvalues.IPV4_NETWORKS.read("192.0.2.0/24, 198.51.100.0/24")[1] == ip_network("198.51.100.0/24")
    assert netvalues.IPV4_RANGE.read(f"{V4}-192.0.2.9") == AddressRange(ip_address(V4), ip_address("192.0.2.9"))
    assert netvalues.VLAN_IDS.read("3,4-6") == (3, 4, 5, 6)
    assert netvalues.VLAN_OR_NONE.read("none") == "none"


@pytest.mark.parametrize(
    ("text", "listen"),
    [
        (":8443", Listen("", 8443)),
        ("127.0.0.1", Listen("127.0.0.1", None)),
        ("127.0.0.1:9999", Listen("127.0.0.1", 9999)),
        ("::", Listen("::", None)),
        ("[::]", Listen("::", None)),
        ("[::1]:8443", Listen("::1", 8443)),
        ("node1.example.net:8443", Listen("node1.example.net", 8443)),
    ],
)
def test_listen_addresses(text: str, listen: Listen) -> None:
    assert netvalues.LISTEN.read(text) == listen


@pytest.mark.parametrize("text", ["host:", ":0", ":65536", "[::1", "[::1]x", "1.2.3.4.5:1", "a b:1", "::1:x", "[1.2.3.4]:1"])
def test_bad_listen_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        netvalues.LISTEN.read(text)


@pytest.mark.parametrize("text", [":8443", "0.0.0.0:1", "[::]:1", "::"])
def test_wildcards_may_be_refused(text: str) -> None:
    with pytest.raises(ValueError, match="wildcard"):
        netvalues.LISTEN_NO_WILDCARD.read(text)


def test_proxy_addresses() -> None:
    read = netvalues.PROXY_ADDRESS.read
    assert read("tcp:127.0.0.1:80,90-92") == ProxyAddress("tcp", "127.0.0.1", (80, 90, 91, 92))
    assert read("udp:[::1]:53") == ProxyAddress("udp", "::1", (53,))
    assert read("unix:/run/a.sock") == ProxyAddress("unix", "/run/a.sock", ())
    assert read("unix:@name").abstract


@pytest.mark.parametrize(
    "text",
    ["tcp:localhost:80", "tcp:::1:80", "tcp:127.0.0.1", "tcp:127.0.0.1:", "tcp:127.0.0.1:0", "tcp:127.0.0.1:9-8", "tcp::80",
     "sctp:127.0.0.1:80", "unix:", "unix:rel", "tcp:127.0.0.1:80,", "unix"],
)  # fmt: skip
def test_bad_proxy_addresses(text: str) -> None:
    with pytest.raises(ValueError):
        netvalues.PROXY_ADDRESS.read(text)
