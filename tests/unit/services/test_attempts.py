"""The limit on failed attempts."""

from __future__ import annotations

import pytest

from atoll.domain.errors import Forbidden
from atoll.services.attempts import Attempts


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def fail(attempts: Attempts, *addresses: str) -> None:
    for address in addresses:
        attempts.check(address)
        attempts.failed(address)


def test_the_sixth_in_a_minute_is_refused_and_a_minute_later_not() -> None:
    clock = Clock()
    attempts = Attempts(clock)
    fail(attempts, *["10.0.0.1"] * 5)
    with pytest.raises(Forbidden):
        attempts.check("10.0.0.1")
    attempts.check("10.0.0.2")
    clock.now = 60.5
    attempts.check("10.0.0.1")


def test_a_v6_subnet_counts_as_one_and_a_mapped_address_as_v4() -> None:
    attempts = Attempts(Clock())
    fail(attempts, "2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8::4%eth0", "2001:db8::5")
    with pytest.raises(Forbidden):
        attempts.check("2001:db8::6")
    attempts.check("2001:db8:0:1::6")
    fail(attempts, "::ffff:10.0.0.9", *["10.0.0.9"] * 4)
    with pytest.raises(Forbidden):
        attempts.check("10.0.0.9")
    attempts.check("::ffff:10.0.0.8")


def test_memory_is_bounded() -> None:
    attempts = Attempts(Clock())
    fail(attempts, *(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(5000)))
    assert len(attempts._failures) == 4096


def test_words_that_are_no_addresses_count_too() -> None:
    attempts = Attempts(Clock())
    fail(attempts, *[""] * 5)
    with pytest.raises(Forbidden):
        attempts.check("")
