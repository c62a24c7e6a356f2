"""Samples, what stands for them, and whether a target is met. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from atollbench.targets import Ceiling, Ratio, Statistic, Target


class Verdict(StrEnum):
    """How Atoll's figure stands to its row's target; NONE where either is absent."""

    MET = "met"
    MISSED = "missed"
    NONE = "–"


@dataclass
class Results:
    """Samples and failures by row key, then by system key. Times in ms or s, memory in MB, as the row says."""

    samples: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    failures: dict[str, dict[str, str]] = field(default_factory=dict)

    def add(self, row: str, system: str, *values: float) -> None:
        self.samples.setdefault(row, {}).setdefault(system, []).extend(values)

    def fail(self, row: str, system: str, reason: str) -> None:
        """Keeps the first reason: what follows a failure mostly repeats it."""
        self.failures.setdefault(row, {}).setdefault(system, reason)

    def of(self, row: str, system: str) -> Sequence[float]:
        return self.samples.get(row, {}).get(system, ())


def figure(samples: Sequence[float], statistic: Statistic) -> float | None:
    """The one number that stands for `samples`; None when there are none."""
    if not samples:
        return None
    return statistics.fmean(samples) if statistic is Statistic.MEAN else statistics.median(samples)


def best_peer(figures: Mapping[str, float | None], subject: str) -> float | None:
    """The smallest figure of all systems but `subject`."""
    return min((value for key, value in figures.items() if key != subject and value is not None), default=None)


def ratio(figures: Mapping[str, float | None], subject: str) -> float | None:
    """`subject`'s figure over the best peer's; None when either is absent or the peer's is zero."""
    own, best = figures.get(subject), best_peer(figures, subject)
    return own / best if own is not None and best else None


def verdict(target: Target | None, figures: Mapping[str, float | None], subject: str) -> Verdict:
    """Whether `subject` meets `target`, exactly reached being met."""
    match target:
        case Ratio(limit=limit):
            value = ratio(figures, subject)
        case Ceiling(limit=limit):
            value = figures.get(subject)
        case None:
            return Verdict.NONE
    if value is None:
        return Verdict.NONE
    return Verdict.MET if value <= limit else Verdict.MISSED
