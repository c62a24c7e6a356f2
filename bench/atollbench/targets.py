"""What is measured, and what Atoll must reach: the one table of rows and targets.

A ratio is taken against the better peer of the same run, so it holds on any machine; memory has ceilings of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Unit(StrEnum):
    """How a sample is counted: milliseconds, seconds, or megabytes (10^6 bytes)."""

    MS = "ms"
    SECONDS = "s"
    MB = "MB"


class Statistic(StrEnum):
    """What stands for a row's samples."""

    MEDIAN = "median"
    MEAN = "mean"


class Stage(StrEnum):
    """The part of a run that yields a row; stages without a wanted row are left out."""

    IDLE = "idle"
    LIFECYCLE = "lifecycle"
    FLEET = "fleet"
    SCALE = "scale"


@dataclass(frozen=True)
class Ratio:
    """Atoll's figure over the best peer's may be `numerator / denominator` at most."""

    numerator: int
    denominator: int = 1

    @property
    def limit(self) -> float:
        return self.numerator / self.denominator

    def __str__(self) -> str:
        return f"≤ {self.numerator}" if self.denominator == 1 else f"≤ {self.numerator}/{self.denominator}"


@dataclass(frozen=True)
class Ceiling:
    """Atoll's figure itself may be `limit` at most, in the row's unit."""

    limit: float
    unit: Unit

    def __str__(self) -> str:
        return f"≤ {self.limit:g} {self.unit}"


Target = Ratio | Ceiling


@dataclass(frozen=True)
class Row:
    """One line of the table. `title` may name {total} and {running}, the sizes of the fleet, and {scale}."""

    key: str
    title: str
    stage: Stage
    unit: Unit = Unit.MS
    target: Target | None = None
    statistic: Statistic = Statistic.MEDIAN


def _megabytes(limit: float) -> Ceiling:
    return Ceiling(limit, Unit.MB)


ROWS: tuple[Row, ...] = (
    Row("launch", "launch (image cached)", Stage.LIFECYCLE, target=Ratio(1, 3)),
    Row("init", "init (created, not started), mean", Stage.FLEET, target=Ratio(1, 5), statistic=Statistic.MEAN),
    Row("start", "start", Stage.LIFECYCLE, target=Ratio(1, 3)),
    Row("exec", "exec `true`", Stage.LIFECYCLE, target=Ratio(1, 2)),
    Row("snapshot", "snapshot of a running instance", Stage.LIFECYCLE, target=Ratio(1, 2)),
    Row("copy", "copy of a snapshot", Stage.LIFECYCLE, target=Ratio(1, 2)),
    Row("stop", "stop --force", Stage.LIFECYCLE, target=Ratio(1, 5)),
    Row("delete", "delete", Stage.LIFECYCLE, target=Ratio(1)),
    Row("list", "list, {total} instances, {running} running", Stage.FLEET, target=Ratio(1, 8)),
    Row("recursion2", "GET /1.0/instances?recursion=2, {total} instances", Stage.FLEET, target=Ratio(1, 20)),
    Row("recursion1", "GET /1.0/instances?recursion=1, {total} instances", Stage.FLEET, target=Ratio(1, 3)),
    Row("instance", "GET /1.0/instances/NAME", Stage.FLEET, target=Ratio(1, 3)),
    Row("state", "GET /1.0/instances/NAME/state", Stage.FLEET, target=Ratio(1, 5)),
    Row("server", "GET /1.0", Stage.FLEET, target=Ratio(1)),
    Row("help", "client: --help", Stage.IDLE),
    Row("list-none", "client: list, no instances", Stage.IDLE),
    Row("rss-idle", "daemon, resident, idle", Stage.IDLE, Unit.MB, _megabytes(60)),
    Row("rss-fleet", "daemon, resident, {total} instances", Stage.FLEET, Unit.MB, _megabytes(80)),
    Row("pss-fleet", "daemon, proportional share, {total} instances", Stage.FLEET, Unit.MB),
    Row("monitor-rss", "monitor process per running instance, resident", Stage.FLEET, Unit.MB, _megabytes(4)),
    Row("monitor-pss", "monitor process per running instance, proportional share", Stage.FLEET, Unit.MB),
)


def scale_rows(count: int) -> tuple[Row, ...]:
    """The rows of `--scale COUNT`: a thousand containers in a minute, and their list within a second."""
    reach = Ceiling(60 * count / 1000, Unit.SECONDS)
    listing = Ceiling(1000, Unit.MS) if count <= 1000 else None
    return (
        Row("scale-reach", "{scale} containers created and running", Stage.SCALE, Unit.SECONDS, reach),
        Row("scale-list", "list of {scale} running", Stage.SCALE, target=listing),
        Row("scale-recursion2", "GET /1.0/instances?recursion=2 of {scale} running", Stage.SCALE),
        Row("scale-rss", "daemon, resident, {scale} running", Stage.SCALE, Unit.MB),
        Row("scale-monitor-rss", "monitor process per container, resident", Stage.SCALE, Unit.MB),
        Row("scale-monitor-pss", "monitor process per container, proportional share", Stage.SCALE, Unit.MB),
        Row("scale-memory", "machine memory taken per container", Stage.SCALE, Unit.MB),
    )
