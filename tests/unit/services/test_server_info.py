"""Facts about the server that are computed."""

from __future__ import annotations

import pytest

from atoll.services import server


@pytest.mark.parametrize(
    ("host", "shown"), [("10.0.0.1", "10.0.0.1:8443"), ("2001:db8::1", "[2001:db8::1]:8443"), ("name", "name:8443")]
)
def test_addresses_are_joined(host: str, shown: str) -> None:
    assert server.join(host, 8443) == shown


@pytest.mark.parametrize(
    ("release", "idmapped"), [("5.4.0-36-generic", "false"), ("5.12.1", "true"), ("6.18", "true"), ("odd", "false")]
)
def test_kernel_features_are_those_of_the_release(release: str, idmapped: str) -> None:
    found = server.kernel_features(release)
    assert found["idmapped_mounts"] == idmapped
    assert set(found.values()) <= {"true", "false"}
