"""`query`."""

from __future__ import annotations


def test_raw_prints_the_envelope(command, capsys):
    command("query --raw /1.0/x", {"GET /1.0/x": {"a": 1}})
    assert capsys.readouterr().out == '{\n\t"type": "sync",\n\t"metadata": {\n\t\t"a": 1\n\t}\n}\n\n'


def test_raw_prints_what_is_no_envelope_as_it_is(command, capfdbinary):
    command("query --raw /1.0/metrics", {"GET /1.0/metrics": b"# TYPE x counter\nx 1\n# EOF\n"})
    assert capfdbinary.readouterr().out == b"# TYPE x counter\nx 1\n# EOF\n"
