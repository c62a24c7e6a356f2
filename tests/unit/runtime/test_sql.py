"""What `atolld sql` prints; the expected texts are those of the interface's own tool."""

from __future__ import annotations

import io
from typing import Any

import pytest

from atoll.client.errors import ServerError
from atoll.runtime import main
from atoll.runtime.commands import sql

CONFIG = {"type": "select", "columns": ["id", "key", "value"], "rows": [[1, "images.auto_update_interval", "0"]]}


def test_a_table() -> None:
    assert sql.render([CONFIG]) == (
        "+----+-----------------------------+-------+\n"
        "| id |             key             | value |\n"
        "+----+-----------------------------+-------+\n"
        "| 1  | images.auto_update_interval | 0     |\n"
        "+----+-----------------------------+-------+\n"
    )


def test_null_numbers_and_line_breaks() -> None:
    rows = [[1.5, None, "x", "multi\nline", "ABC"]]
    assert sql.render([{"type": "select", "columns": ["a", "b", "c", "d", "e"], "rows": rows}]) == (
        "+-----+-------+---+-------+-----+\n"
        "|  a  |   b   | c |   d   |  e  |\n"
        "+-----+-------+---+-------+-----+\n"
        "| 1.5 | <nil> | x | multi | ABC |\n"
        "|     |       |   | line  |     |\n"
        "+-----+-------+---+-------+-----+\n"
    )


@pytest.mark.parametrize("rows", [[], None])
def test_no_rows(rows: Any) -> None:
    assert sql.render([{"type": "select", "columns": ["1"], "rows": rows}]) == "+---+\n| 1 |\n+---+\n+---+\n"


def test_several_results() -> None:
    results: list[dict[str, Any]] = [
        {"type": "exec", "rows_affected": 1},
        {"type": "select", "columns": ["1"], "rows": [[1]]},
    ]
    table = "+---+\n| 1 |\n+---+\n| 1 |\n+---+\n"
    assert sql.render(results) == f"=> Query 0:\n\nRows affected: 1\n\n=> Query 1:\n\n{table}\n"


def test_a_query_from_standard_input(fake: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    fake.answers["POST /internal/sql"] = {"results": [{"type": "exec", "rows_affected": 2}]}
    monkeypatch.setattr("sys.stdin", io.StringIO("DELETE FROM config\n"))
    assert main.dispatch("atolld", ["sql", "global", "-"]) == 0
    assert capsys.readouterr().out == "Rows affected: 2\n"
    assert fake.changes == [("POST", "/internal/sql", {"database": "global", "query": "DELETE FROM config\n"})]


@pytest.mark.parametrize(("word", "schema"), [(".dump", 0), (".schema", 1)])
def test_dumps(fake: Any, capsys: pytest.CaptureFixture[str], word: str, schema: int) -> None:
    fake.answers[f"GET /internal/sql?database=local&schema={schema}"] = {"text": "COMMIT;\n"}
    main.dispatch("atolld", ["sql", "local", word])
    assert capsys.readouterr().out == "COMMIT;\n"


def test_sync(fake: Any) -> None:
    fake.answers["POST /internal/sql/sync"] = {}
    assert main.dispatch("atolld", ["sql", "global", ".sync"]) == 0


def test_the_servers_refusal_is_passed_on(fake: Any) -> None:
    fake.refuse["POST /internal/sql"] = 'Failed to exec query: near "bogus": syntax error'
    with pytest.raises(ServerError, match='near "bogus"'):
        main.dispatch("atolld", ["sql", "global", "bogus"])
