"""The page: self-contained, escaped, complete, written whatever the verdict."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest

from components.contracts.errors import DataGateClosed

HOSTILE = "<script>alert(1)</script>"


class Tags(HTMLParser):
    """Collects tags and their attributes, and checks that what is opened is closed."""

    VOID = ("meta", "link", "br", "hr", "img", "input", "line", "rect")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.stack: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.stack.pop() == tag


def parse(html: str) -> Tags:
    tags = Tags()
    tags.feed(html)
    assert tags.stack == []
    return tags


def soiled(rows: list[Any]) -> list[Any]:
    """Two rows whose hostile ids the page has to show as examples."""
    first, second, *rest = rows
    return [{**first, "impression_id": HOSTILE}, {**second, "impression_id": HOSTILE}, *rest]


def test_nothing_is_loaded_from_anywhere(stage: Any, rows: list[Any]) -> None:
    stage.run(soiled(rows))
    html = stage.docs.read_text()
    tags = parse(html)
    for tag, attributes in tags.found:
        assert tag not in ("script", "link", "iframe", "object", "embed", "img", "base"), tag
        for name, value in attributes.items():
            assert name not in ("src", "href", "action"), (tag, name)
            assert not name.startswith("on"), (tag, name)
            assert not re.search(r"https?://", value or ""), (tag, name, value)
    assert "@import" not in html
    assert "url(" not in html


def test_hostile_values_are_shown_as_text(stage: Any, rows: list[Any]) -> None:
    stage.run(soiled(rows))
    html = stage.docs.read_text()
    assert HOSTILE not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in html


def test_a_hostile_name_is_shown_as_text(stage: Any, rows: list[Any], config: Any) -> None:
    info = config.info.model_copy(update={"name": HOSTILE, "context": {f"x{HOSTILE}": "int"}})
    with pytest.raises(DataGateClosed):
        stage.run(rows, config=config.model_copy(update={"info": info}))
    html = stage.docs.read_text()
    parse(html)
    assert HOSTILE not in html


def test_shows_verdict_limits_reasons_days_and_every_expectation(stage: Any, rows: list[Any]) -> None:
    facts = stage.run(soiled(rows))
    html = stage.docs.read_text()
    assert "The data gate is open" in html
    assert html.count('class="c-status"') >= 4
    assert len(re.findall(r'<td><span class="pill', html)) == facts["expectations"] >= 25
    for text in ("10.0 %", "5.0 %", "1.0 %", "DUPLICATE_ID", "01-02", "DuckDB", "ExpectColumnMaxToBeBetween"):
        assert text in html


def test_shows_reasons_by_day(stage: Any, rows: list[Any]) -> None:
    late = [{**r, "hour": 24} if r["dt"] == "2026-01-03" and n % 50 == 1 else r for n, r in enumerate(soiled(rows))]
    stage.run(late)
    html = stage.docs.read_text()
    parse(html)
    assert "<title>DUPLICATE_ID on 2026-01-01: 2 of 100 rows (2.0 %)</title>" in html
    assert "<title>HOUR on 2026-01-03: 2 of 100 rows (2.0 %)</title>" in html
    assert "HOUR on 2026-01-02" not in html


def test_a_closed_gate_says_so_on_top(stage: Any, rows: list[Any]) -> None:
    with pytest.raises(DataGateClosed):
        stage.run(rows, drop=("hour",))
    html = stage.docs.read_text()
    parse(html)
    assert (
        html.index("The data gate is closed")
        < html.index("the log has no column &#39;hour&#39;")
        < html.index("rows in")
    )
    assert "not run: it needs hour" in html


def test_an_empty_log_has_a_page_too(stage: Any) -> None:
    with pytest.raises(DataGateClosed):
        stage.run([])
    parse(stage.docs.read_text())
