"""Figures, ratios and verdicts."""

import pytest
from atollbench import stats
from atollbench.stats import Results, Verdict
from atollbench.targets import Ceiling, Ratio, Statistic, Unit


def test_a_median_is_not_moved_by_one_slow_sample() -> None:
    assert stats.figure([10, 11, 500], Statistic.MEDIAN) == 11


def test_a_mean_counts_every_sample() -> None:
    assert stats.figure([10, 11, 500], Statistic.MEAN) == pytest.approx(173.667, abs=0.001)


def test_no_samples_give_no_figure() -> None:
    assert stats.figure([], Statistic.MEDIAN) is None


def test_the_ratio_is_to_the_best_peer_that_was_measured() -> None:
    assert stats.ratio({"lxd": 100.0, "incus": 40.0, "atoll": 10.0}, "atoll") == 0.25
    assert stats.ratio({"lxd": 100.0, "incus": None, "atoll": 10.0}, "atoll") == 0.1


@pytest.mark.parametrize("figures", [{"atoll": 10.0}, {"atoll": 10.0, "lxd": None}, {"lxd": 10.0}, {"atoll": 1.0, "lxd": 0.0}])
def test_without_both_sides_there_is_no_ratio(figures: dict[str, float | None]) -> None:
    assert stats.ratio(figures, "atoll") is None


@pytest.mark.parametrize(("own", "verdict"), [(49.9, Verdict.MET), (50.0, Verdict.MET), (50.1, Verdict.MISSED)])
def test_a_ratio_is_met_up_to_its_limit(own: float, verdict: Verdict) -> None:
    assert stats.verdict(Ratio(1, 2), {"lxd": 300.0, "incus": 100.0, "atoll": own}, "atoll") is verdict


def test_a_ceiling_needs_no_peer() -> None:
    assert stats.verdict(Ceiling(60, Unit.MB), {"atoll": 60.0}, "atoll") is Verdict.MET
    assert stats.verdict(Ceiling(60, Unit.MB), {"atoll": 60.5, "lxd": 80.0}, "atoll") is Verdict.MISSED


def test_without_target_or_figure_there_is_no_verdict() -> None:
    assert stats.verdict(None, {"atoll": 1.0, "lxd": 2.0}, "atoll") is Verdict.NONE
    assert stats.verdict(Ratio(1), {"lxd": 2.0}, "atoll") is Verdict.NONE


def test_results_gather_samples_and_keep_the_first_failure() -> None:
    results = Results()
    results.add("launch", "lxd", 1.0)
    results.add("launch", "lxd", 2.0, 3.0)
    results.fail("launch", "incus", "first")
    results.fail("launch", "incus", "second")
    assert results.of("launch", "lxd") == [1.0, 2.0, 3.0]
    assert not results.of("launch", "incus")
    assert results.failures == {"launch": {"incus": "first"}}
