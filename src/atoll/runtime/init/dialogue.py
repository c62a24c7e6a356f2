"""Questions on a terminal or a pipe: how they are put, checked and put again."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable, Sequence

from atoll.cli.errors import CommandError

Check = Callable[[str], None]
"""Raises ValueError, with the reason, for an answer that does not do."""


class Dialogue:
    """Puts questions and reads answers, one line each; CommandError when the input ends before the last question.

    read: the next line with its line break, "" at the end. secret: a line that is not shown. write: shows text.
    """

    def __init__(self, *, read: Callable[[], str], secret: Callable[[str], str], write: Callable[[str], object]) -> None:
        self._read = read
        self._secret = secret
        self._write = write

    def say(self, text: str) -> None:
        """Show a line."""
        self._write(text + "\n")

    def text(self, question: str, *, default: str | None = None, check: Check | None = None) -> str:
        """An answer, not empty unless there is a default; asked again until it passes `check`."""
        suffix = f" [default={default}]: " if default is not None else ": "
        while True:
            answer = self._line(question + suffix) or default or ""
            try:
                if check is not None:
                    check(answer)
                elif not answer and default is None:
                    raise ValueError
            except ValueError as error:
                self._write(_complaint(str(error)))
            else:
                return answer

    def yes_no(self, question: str, *, default: bool) -> bool:
        """`yes` or `no`, also `y` and `n`."""
        shown = "yes" if default else "no"
        while True:
            answer = (self._line(f"{question} [default={shown}]: ") or shown).lower()
            if answer in ("yes", "y", "no", "n"):
                return answer.startswith("y")
            self._write(_complaint(""))

    def choice(self, question: str, choices: Sequence[str], *, default: str) -> str:
        """One of the words of `choices`."""
        return self.text(f"{question} ({', '.join(choices)})", default=default, check=_one_of(choices))

    def number(self, question: str, *, least: int, most: int, default: int) -> int:
        """A whole number within bounds."""
        return int(self.text(question, default=str(default), check=_between(least, most)))

    def password(self, question: str) -> str:
        """A secret, typed twice the same, not empty."""
        while True:
            first, again = self._secret(f"{question}: "), self._secret("Again: ")
            if first and first == again:
                return first
            self._write(_complaint(""))

    def _line(self, prompt: str) -> str:
        self._write(prompt)
        line = self._read()
        if not line:
            raise CommandError("EOF")
        return line.strip()


def _complaint(reason: str) -> str:
    return f"Invalid input: {reason}\n\n" if reason else "Invalid input, try again.\n\n"


def _one_of(choices: Sequence[str]) -> Check:
    def check(answer: str) -> None:
        if answer not in choices:
            raise ValueError

    return check


def _between(least: int, most: int) -> Check:
    def check(answer: str) -> None:
        if not (answer.isdecimal() and least <= int(answer) <= most):
            raise ValueError

    return check


def on_standard_streams() -> Dialogue:
    """A dialogue on standard input and output. Secrets come without echo from a terminal, as plain lines from a pipe."""

    def write(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def secret(prompt: str) -> str:
        if sys.stdin.isatty():
            return getpass.getpass(prompt)
        write(prompt)
        line = sys.stdin.readline()
        if not line:
            raise CommandError("EOF")
        write("\n")
        return line.rstrip("\n")

    return Dialogue(read=sys.stdin.readline, secret=secret, write=write)
