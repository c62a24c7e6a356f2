"""From results to text: the table, and the document around it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from atollbench import stats
from atollbench.stats import Results, Verdict
from atollbench.targets import Row, Unit

ABSENT = "–"
COPIES, SECTION = "## Copies on one server", "## Between servers"
"""How the sections begin that `bench/storage` and `bench/migrate` write, last on the page."""


@dataclass(frozen=True)
class Column:
    """A system as the table shows it."""

    key: str
    title: str


@dataclass(frozen=True)
class Document:
    """All that the written report holds. `facts` are shown as they come; `sizes` fill the rows' titles."""

    subject: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    results: Results
    facts: Mapping[str, str]
    sizes: Mapping[str, int]
    command: str


def number(value: float) -> str:
    """Three significant digits, never in powers of ten."""
    if value >= 99.95:  # from there on it rounds to more than two digits before the point
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 9.995 else f"{value:.2f}"


def quantity(value: float | None, unit: Unit) -> str:
    return ABSENT if value is None else f"{number(value)} {unit}"


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose source is aligned too: the first column to the left, all others to the right."""
    widths = [max(len(line[i]) for line in [header, *lines]) for i in range(len(header))]

    def render(cells: Sequence[str]) -> str:
        padded = [cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in _numbered(cells, widths)]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([render(header), render(rule), *(render(line) for line in lines)])


def _numbered(cells: Sequence[str], widths: Sequence[int]) -> enumerate[tuple[str, int]]:
    return enumerate(zip(cells, widths, strict=True))


def _cells(row: Row, document: Document) -> list[str]:
    results, keys = document.results, [column.key for column in document.columns]
    figures = {key: stats.figure(results.of(row.key, key), row.statistic) for key in keys}
    failed = results.failures.get(row.key, {})
    verdict = stats.verdict(row.target, figures, document.subject)
    if row.target is not None and document.subject in failed:
        verdict = Verdict.MISSED
    share = stats.ratio(figures, document.subject)
    return [
        row.title.format_map(document.sizes),
        *("failed" if key in failed else quantity(figures[key], row.unit) for key in keys),
        ABSENT if share is None else f"{share:.3f}",
        ABSENT if row.target is None else str(row.target),
        verdict,
    ]


def comparison(document: Document) -> str:
    """The main table: a line a row, a column a system, Atoll's ratio to the best peer, target and verdict."""
    header = ["operation", *(column.title for column in document.columns), "ratio", "target", "verdict"]
    return table(header, [_cells(row, document) for row in document.rows])


def spread(document: Document) -> str:
    """How far the samples lie apart: number of samples, least and greatest, for each system."""
    lines = []
    for row in document.rows:
        cells = [row.title.format_map(document.sizes)]
        for column in document.columns:
            samples = document.results.of(row.key, column.key)
            cells.append(f"{len(samples)}: {number(min(samples))}–{number(max(samples))}" if samples else ABSENT)
        lines.append(cells)
    return table(["operation", *(column.title for column in document.columns)], lines)


def failures(document: Document) -> list[str]:
    """One line for each row that a system could not be measured on, with the first reason."""
    titles = {column.key: column.title for column in document.columns}
    return [
        f"{row.title.format_map(document.sizes)}, {titles[key]}: {reason}"
        for row in document.rows
        for key, reason in document.results.failures.get(row.key, {}).items()
    ]


def tally(document: Document) -> str:
    """How many targets are met, in one sentence."""
    verdicts = [_cells(row, document)[-1] for row in document.rows]
    met, missed = verdicts.count(Verdict.MET), verdicts.count(Verdict.MISSED)
    return f"{met} of {met + missed} measured targets are met." if met + missed else "No target was measured."


def markdown(document: Document) -> str:
    """The whole of docs/benchmarks.md."""
    facts = "\n".join(f"- {name}: {value}" for name, value in document.facts.items())
    failed = failures(document)
    parts = [
        "# Benchmarks",
        f"Written by `{document.command}`; the next run of it replaces this page. How it measures: `bench/README.md`.",
        tally(document),
        comparison(document),
        "*Ratio* is Atoll's figure over the better peer's in the same run. A ratio carries over to other machines, an\n"
        "absolute time does not. Each figure is the median of its samples where the row does not say otherwise.",
        "## Machine and versions",
        facts,
        "## Spread",
        "Number of samples: least–greatest.",
        spread(document),
    ]
    if failed:
        parts += ["## Not measured", "\n".join(f"- {line}" for line in failed)]
    return "\n\n".join(parts) + "\n"


def with_section(page: str, section: str) -> str:
    """The page with that section in the place of the one that begins alike, or at its end."""
    before, _, rest = page.partition(section.partition("\n")[0] + "\n")
    _, found, after = rest.partition("\n## ")
    return f"{before.rstrip()}\n\n{section}\n{found}{after}"


def section_of(page: str) -> str:
    """The page from the first of the sections on that `markdown` does not make, "" if it has none."""
    starts = [start for heading in (COPIES, SECTION) if (start := page.find(f"{heading}\n")) >= 0]
    return page[min(starts) :].rstrip() if starts else ""
