"""The rendered table and page."""

import pytest
from atollbench import report
from atollbench.report import Column, Document
from atollbench.stats import Results
from atollbench.targets import ROWS, Ceiling, Ratio, Row, Stage, Unit, scale_rows

LAUNCH = Row("launch", "launch", Stage.LIFECYCLE, target=Ratio(1, 3))
LIST = Row("list", "list, {total} instances", Stage.FLEET, target=Ratio(1, 8))
MEMORY = Row("rss", "daemon", Stage.IDLE, Unit.MB, Ceiling(60, Unit.MB))


def document(results: Results, *rows: Row) -> Document:
    return Document(
        subject="atoll",
        columns=[Column("lxd", "LXD"), Column("incus", "Incus"), Column("atoll", "Atoll")],
        rows=rows,
        results=results,
        facts={"Kernel": "Linux 6"},
        sizes={"total": 106, "running": 6, "scale": 0},
        command="bench/run",
    )


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def full_results() -> Results:
    results = Results()
    results.add("launch", "lxd", 1200, 1100, 1250)
    results.add("launch", "incus", 310)
    results.add("launch", "atoll", 62)
    results.add("rss", "atoll", 61.25)
    return results


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234.5, "1,234"),
        (100.0, "100"),
        (99.96, "100"),
        (99.94, "99.9"),
        (10.0, "10.0"),
        (9.996, "10.0"),
        (9.876, "9.88"),
        (0.0, "0.00"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert report.number(value) == text


def test_the_table_is_aligned_markdown() -> None:
    assert report.table(["a", "b"], [["long", "1"], ["x", "100"]]).splitlines() == [
        "| a    |   b |",
        "| ---- | --: |",
        "| long |   1 |",
        "| x    | 100 |",
    ]


def test_a_line_shows_figures_ratio_target_and_verdict() -> None:
    lines = report.comparison(document(full_results(), LAUNCH, MEMORY)).splitlines()
    assert cells(lines[2]) == ["launch", "1,200 ms", "310 ms", "62.0 ms", "0.200", "≤ 1/3", "met"]
    assert cells(lines[3]) == ["daemon", "–", "–", "61.2 MB", "–", "≤ 60 MB", "missed"]


def test_titles_tell_the_sizes() -> None:
    assert "list, 106 instances" in report.comparison(document(Results(), LIST))


def test_a_failure_is_a_missed_target_and_is_explained() -> None:
    results = full_results()
    results.fail("launch", "atoll", "no such image")
    page = document(results, LAUNCH)
    assert cells(report.comparison(page).splitlines()[2])[3:] == ["failed", "0.200", "≤ 1/3", "missed"]
    assert report.failures(page) == ["launch, Atoll: no such image"]
    assert "## Not measured\n\n- launch, Atoll: no such image" in report.markdown(page)


def test_a_peers_failure_leaves_the_other_peer_to_compare_with() -> None:
    results = full_results()
    results.fail("launch", "lxd", "broken")
    assert cells(report.comparison(document(results, LAUNCH)).splitlines()[2])[1:3] == ["failed", "310 ms"]


def test_the_tally_leaves_out_what_was_not_measured() -> None:
    assert report.tally(document(full_results(), LAUNCH, LIST, MEMORY)) == "1 of 2 measured targets are met."
    assert report.tally(document(Results(), LAUNCH)) == "No target was measured."


def test_the_page_holds_facts_command_and_spread() -> None:
    page = report.markdown(document(full_results(), LAUNCH))
    assert "- Kernel: Linux 6" in page
    assert "`bench/run`" in page
    assert "3: 1,100–1,250" in page
    assert "Not measured" not in page


def test_row_keys_are_unique_and_titles_can_be_filled() -> None:
    rows = [*ROWS, *scale_rows(1000)]
    assert len({row.key for row in rows}) == len(rows)
    for row in rows:
        row.title.format_map({"total": 1, "running": 1, "scale": 1})


def test_the_scale_target_is_a_thousand_in_a_minute() -> None:
    assert scale_rows(1000)[0].target == Ceiling(60, Unit.SECONDS)
    assert scale_rows(300)[0].target == Ceiling(18, Unit.SECONDS)


def test_the_section_of_the_other_tool_stays_and_is_replaced() -> None:
    page = report.with_section("# Page\n\ntext\n", f"{report.SECTION}\n\none")
    assert report.section_of(page) == f"{report.SECTION}\n\none"
    assert report.with_section(page, f"{report.SECTION}\n\ntwo") == f"# Page\n\ntext\n\n{report.SECTION}\n\ntwo\n"
    assert report.section_of("# Page\n") == ""
