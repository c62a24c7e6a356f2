"""Command aliases of the user's configuration."""

from __future__ import annotations


def expand(words: list[str], aliases: dict[str, str]) -> list[str]:
    """Replace an alias at the start of `words`, the longest that fits.

    An alias is one or more words. In its target, `@ARGS@` stands for the remaining words; without it they follow.
    """
    best: list[str] = []
    target = ""
    for name, value in aliases.items():
        key = name.split()
        if words[: len(key)] == key and len(key) > len(best):
            best, target = key, value
    if not best:
        return words
    import shlex

    rest = words[len(best) :]
    expanded: list[str] = []
    used = False
    for word in shlex.split(target):
        if word == "@ARGS@":
            expanded += rest
            used = True
        else:
            expanded.append(word)
    return expanded if used else expanded + rest
