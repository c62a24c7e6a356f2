"""Command lines into flags and arguments, by the rules users know from cobra and pflag."""

from __future__ import annotations

from atoll.cli.errors import CommandError, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from atoll.cli.spec import Flag


class Flags:
    """The flags of one call. A flag that was not given has its default; `given` tells the two apart."""

    def __init__(self, known: Iterable[Flag]) -> None:
        self._long: dict[str, Flag] = {flag.name: flag for flag in known}
        self._short: dict[str, Flag] = {flag.short: flag for flag in known if flag.short}
        self._values: dict[str, list[str]] = {}

    def given(self, name: str) -> bool:
        """Whether the flag was on the command line."""
        return name in self._values

    def on(self, name: str) -> bool:
        """A switch; False where the command has no such flag."""
        return self._values.get(name, ["false"])[-1] == "true"

    def text(self, name: str) -> str:
        """The last value, else the default, else an empty string (also where the command has no such flag)."""
        values = self._values.get(name)
        if values:
            return values[-1]
        return self._long[name].default if name in self._long else ""

    def every(self, name: str) -> list[str]:
        """All values of a list flag, in order."""
        return self._values.get(name, [])

    def number(self, name: str) -> int:
        """The value of an int flag; 0 where it has neither value nor default."""
        return int(self.text(name) or 0)

    def set(self, flag: Flag, shown: str, value: str) -> None:
        """Record a value. `shown` is the flag as messages name it."""
        if flag.kind == "int" and not _is_int(value):
            raise CommandError(
                f'invalid argument "{value}" for "{shown}" flag: strconv.ParseInt: parsing "{value}": invalid syntax'
            )
        if flag.kind == "switch":
            value = _switch_value(value, shown)
        self._values.setdefault(flag.name, []).append(value)

    def long(self, name: str) -> Flag:
        """The flag `--name`."""
        try:
            return self._long[name]
        except KeyError:
            raise CommandError(f"unknown flag: --{name}") from None

    def short(self, letter: str, token: str) -> Flag:
        """The flag `-letter`, met in `token` (the rest of a cluster such as -it)."""
        try:
            return self._short[letter]
        except KeyError:
            raise CommandError(f"unknown shorthand flag: '{letter}' in -{token}") from None


def _is_int(value: str) -> bool:
    return (value[1:] if value[:1] in ("-", "+") else value).isdigit()


def _switch_value(value: str, shown: str) -> str:
    if value in ("true", "1", "t", "T", "TRUE", "True"):
        return "true"
    if value in ("false", "0", "f", "F", "FALSE", "False"):
        return "false"
    raise CommandError(f'invalid argument "{value}" for "{shown}" flag: strconv.ParseBool: parsing "{value}": invalid syntax')


def shown(flag: Flag) -> str:
    """How messages name a flag: `-s, --name` or `--name`."""
    return f"-{flag.short}, --{flag.name}" if flag.short else f"--{flag.name}"


def parse(words: list[str], flags: Flags) -> list[str]:
    """Fill `flags` from `words`; returns the arguments. Flags and arguments may mix; `--` ends the flags."""
    arguments: list[str] = []
    rest = list(reversed(words))
    while rest:
        word = rest.pop()
        if word == "--":
            arguments.extend(reversed(rest))
            break
        if word.startswith("--"):
            _parse_long(word[2:], rest, flags)
        elif word.startswith("-") and len(word) > 1:
            _parse_short(word[1:], rest, flags)
        else:
            arguments.append(word)
    return arguments


def _parse_long(body: str, rest: list[str], flags: Flags) -> None:
    name, equals, value = body.partition("=")
    flag = flags.long(name)
    if not equals:
        if flag.kind == "switch":
            value = "true"
        elif flag.implied:
            value = flag.implied
        elif rest:
            value = rest.pop()
        else:
            raise CommandError(f"flag needs an argument: --{name}")
    flags.set(flag, shown(flag), value)


def _parse_short(cluster: str, rest: list[str], flags: Flags) -> None:
    token = cluster
    while token:
        letter, token = token[0], token[1:]
        flag = flags.short(letter, letter + token)
        if token.startswith("="):
            flags.set(flag, shown(flag), token[1:])
            return
        if flag.kind == "switch":
            flags.set(flag, shown(flag), "true")
            continue
        if token:
            value = token
        elif rest:
            value = rest.pop()
        else:
            raise CommandError(f"flag needs an argument: '{letter}' in -{cluster}")
        flags.set(flag, shown(flag), value)
        return


def tokens(usage: str) -> list[str]:
    """The arguments named in a usage text: split at spaces outside of brackets."""
    found: list[str] = []
    depth = 0
    word = ""
    for letter in usage:
        depth += (letter in "[<") - (letter in "]>")
        if letter == " " and depth == 0:
            found.append(word)
            word = ""
        else:
            word += letter
    return [token for token in [*found, word] if token]


def _is_optional(token: str) -> bool:
    """Whether nothing of the token stands outside of square brackets."""
    depth = 0
    for letter in token.removesuffix("..."):
        depth += letter == "["
        if depth == 0:
            return False
        depth -= letter == "]"
    return True


def bounds(usage: str) -> tuple[int, int | None]:
    """The least and the greatest number of arguments a usage text allows; None: any number."""
    words = [token for token in tokens(usage) if token != "[flags]" and not token.startswith("[--")]
    least = sum(not _is_optional(token) for token in words)
    endless = any("..." in token or token == "<command line>" for token in words)
    return least, None if endless else len(words)


def check_count(usage: str, arguments: list[str]) -> None:
    """Raise UsageError unless `usage` allows that many arguments."""
    least, most = bounds(usage)
    if len(arguments) < least or (most is not None and len(arguments) > most):
        raise UsageError(bare=not arguments)
