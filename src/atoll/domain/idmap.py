"""Maps of user and group ids between an instance and the host."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class IdRange:
    """`count` ids from `inside` in the instance are those from `outside` on the host, for users, groups or both."""

    inside: int
    outside: int
    count: int
    users: bool = True
    groups: bool = True


@dataclass(frozen=True, slots=True)
class IdMap:
    """The ranges of one instance; hashable, so that things made for a map can be cached by it."""

    ranges: tuple[IdRange, ...]

    @classmethod
    def plain(cls, base: int, count: int) -> IdMap:
        """Users and groups 0..count-1 become base..base+count-1."""
        return cls((IdRange(0, base, count),))

    @property
    def root(self) -> int:
        """The host's uid of the instance's root. KeyError if root is not mapped."""
        return self._outside_of_zero(groups=False)

    @property
    def root_group(self) -> int:
        """The host's gid of the instance's root group. KeyError if it is not mapped."""
        return self._outside_of_zero(groups=True)

    def _outside_of_zero(self, *, groups: bool) -> int:
        for entry in self.ranges:
            if (entry.groups if groups else entry.users) and entry.inside <= 0 < entry.inside + entry.count:
                return entry.outside - entry.inside
        raise KeyError("gid 0 is not mapped" if groups else "uid 0 is not mapped")
