"""What a template has while it is rendered: its variables, its output, and what is left of its limits."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from atoll.domain.errors import BadRequest, DeadlineExceeded
from atoll.domain.templating import values
from atoll.domain.templating.values import Value


@dataclass(frozen=True, slots=True)
class Limits:
    """`source` and `output` in characters; `work` in steps, where a value costs a step for each 64 characters of it."""

    source: int = 256 << 10
    output: int = 1 << 20
    work: int = 100_000
    seconds: float = 1.0


class Scope:
    """One rendering."""

    def __init__(self, variables: Mapping[str, Value], limits: Limits) -> None:
        self._variables = [dict(variables)]
        self._output: list[str] = []
        self._written = 0
        self._work = limits.work
        self._limits = limits
        self._end = time.monotonic() + limits.seconds

    def spend(self, value: Value = None) -> None:
        """A step of work that made `value`. BadRequest when all is spent, DeadlineExceeded when the time is over."""
        self._work -= 1 + values.size(value) // 64
        if self._work < 0:
            raise BadRequest(f"the template takes more than {self._limits.work} steps")
        if time.monotonic() > self._end:
            raise DeadlineExceeded(f"the template takes longer than {self._limits.seconds:g} seconds")

    def write(self, text: str) -> None:
        """Append to the output."""
        self.spend(text)
        self._written += len(text)
        if self._written > self._limits.output:
            raise BadRequest(f"the template writes more than {self._limits.output} characters")
        self._output.append(text)

    def result(self) -> str:
        """The output."""
        return "".join(self._output)

    def look_up(self, name: str) -> Value:
        """A variable's value; nothing if there is none."""
        for variables in reversed(self._variables):
            if name in variables:
                return variables[name]
        return None

    def assign(self, name: str, value: Value) -> None:
        """Set a variable of the innermost block."""
        self._variables[-1][name] = value

    @contextmanager
    def block(self, variables: Mapping[str, Value]) -> Iterator[None]:
        """While the block runs there are these variables too, and what it assigns is forgotten after it."""
        self._variables.append(dict(variables))
        try:
            yield
        finally:
            self._variables.pop()
