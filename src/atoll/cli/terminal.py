"""The terminal: whether there is one, progress lines, an editor, a question."""

from __future__ import annotations

import posix
import sys

from atoll.cli.errors import CommandError
from atoll.client.address import variable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def is_terminal(descriptor: int) -> bool:
    """Whether a descriptor is a terminal; a closed one is none."""
    try:
        return posix.isatty(descriptor)
    except OSError:
        return False


class Progress:
    """One line that says how far a long operation is, rewritten in place. `label` stands before the state."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._shown = 0
        self._text = ""

    def __call__(self, metadata: dict[str, Any]) -> None:
        """Show the first `…_progress` of an operation's metadata."""
        for key in sorted(metadata):
            if key.endswith("_progress") and metadata[key]:
                self.show(f"{self._label}: {metadata[key]}" if self._label else str(metadata[key]))
                return

    def show(self, text: str) -> None:
        """Replace the line."""
        if text == self._text:
            return
        self._text = text
        sys.stdout.write(f"\r{text}{' ' * (self._shown - len(text))}")
        sys.stdout.flush()
        self._shown = max(self._shown, len(text))

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            sys.stdout.write("\r" + " " * self._shown + "\r")
            sys.stdout.flush()
            self._shown, self._text = 0, ""


def read_input() -> str | None:
    """Standard input when it is a pipe or a file; None when it is a terminal or nothing was sent."""
    if is_terminal(0):
        return None
    try:
        return sys.stdin.read()
    except OSError:
        return None


def edit(text: str) -> str:
    """Let the user change a text."""
    import tempfile

    with tempfile.NamedTemporaryFile("w", prefix="atoll_editor_", suffix=".yaml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        edit_file(file.name)
        with open(file.name, encoding="utf-8") as changed:
            return changed.read()


def edit_file(path: str) -> None:
    """Let the user change a file in VISUAL, EDITOR, else vi."""
    import os

    editor = variable("VISUAL") or variable("EDITOR") or _found_editor()
    status = os.spawnlp(os.P_WAIT, "sh", "sh", "-c", f'{editor} "$1"', "sh", path)
    if status != 0:
        raise CommandError(f"The editor failed: exit status {status}")


def _found_editor() -> str:
    import os

    for name in ("editor", "vi", "emacs", "nano"):
        if any(os.access(f"{folder}/{name}", os.X_OK) for folder in os.get_exec_path()):
            return name
    raise CommandError("No text editor found, please set the EDITOR environment variable")


def ask(question: str) -> str:
    """The answer to a question, without blanks around it; an empty answer when there is no more input."""
    sys.stdout.write(question)
    sys.stdout.flush()
    return sys.stdin.readline().strip()
