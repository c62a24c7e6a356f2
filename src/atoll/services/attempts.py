"""A limit on failed attempts per address, so that passwords cannot be tried out."""

from __future__ import annotations

import ipaddress
import time
from collections import OrderedDict, deque
from collections.abc import Callable

from atoll.domain.errors import Forbidden

_LIMIT = 5
_SECONDS = 60.0
_ADDRESSES = 4096


class Attempts:
    """Five failures in a minute are allowed; the addresses of an IPv6 /64 count as one, for whoever has one has all."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str) -> None:
        """Forbidden if there were too many failures."""
        if len(self._recent(_group(address))) >= _LIMIT:
            raise Forbidden("Too many failed attempts", hint="try again in a minute")

    def failed(self, address: str) -> None:
        """Count one. The oldest addresses are forgotten when there are too many of them."""
        group = _group(address)
        times = self._recent(group)
        times.append(self._clock())
        self._failures[group] = times
        self._failures.move_to_end(group)
        while len(self._failures) > _ADDRESSES:
            self._failures.popitem(last=False)

    def _recent(self, group: str) -> deque[float]:
        times = self._failures.get(group) or deque()
        while times and times[0] <= self._clock() - _SECONDS:
            times.popleft()
        return times


def _group(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.IPv6Network((parsed, 64), strict=False))
    return address
