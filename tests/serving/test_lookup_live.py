"""The online lookup while the store changes under it, or a change of it dies."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing

import pytest
from features.made import AS_OF, at, spec
from lookup_made import fill, given, place, tables
from meanwhile import meanwhile

from components.contracts.errors import ServiceError
from components.contracts.times import format_utc
from components.features.online import sqlite_store
from serving.lookup import OnlineLookup


def test_a_running_service_sees_a_new_materialization(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    folder = fill(tmp_path, as_of=format_utc(at(18.5)))
    opened = OnlineLookup(place(folder), spec(), "frozen")
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [7]
    assert opened.materialized_as_of() == format_utc(at(18.5))
    fill(tmp_path, tables(clicks=100), number=1)
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [107]
    assert opened.materialized_as_of() == AS_OF
    opened.close()


def test_readers_see_old_or_new_and_are_never_refused(tmp_path, monkeypatch):
    """While materializations follow each other, every answer is one of them, whole."""
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    folder = fill(tmp_path)
    opened = OnlineLookup(place(folder), spec(), "frozen")
    seen, failures = set(), []

    def read(over):
        while not over.is_set():
            try:
                seen.add(tuple(opened.rows("u1", ["i1", "i3"], given("i1", "i3")).columns["item_clicks_7d"].tolist()))
            except ServiceError as error:
                failures.append(error)

    with meanwhile(read):
        for number in (1, 2):
            fill(tmp_path, tables(clicks=100 * number), number=number)
    seen.add(tuple(opened.rows("u1", ["i1", "i3"], given("i1", "i3")).columns["item_clicks_7d"].tolist()))
    opened.close()
    assert failures == []
    assert seen <= {(7, 6), (107, 106), (207, 206)}
    assert (207, 206) in seen


def test_a_dying_materialization_is_not_served(tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_HOME", str(tmp_path / "home"))
    folder = fill(tmp_path)
    opened = OnlineLookup(place(folder), spec(), "frozen")

    def die(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(sqlite_store, "publish", die)
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path, tables(clicks=100), number=1)
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [7]
    opened.close()


def test_a_dying_swap_is_rolled_back(store, tmp_path):
    """Killed inside the backup's transaction, after half of the pages: the old values answer."""
    bigger = tmp_path / "bigger.db"
    shutil.copy(store / "online.db", bigger)
    with closing(sqlite3.connect(bigger)) as db:
        db.execute("UPDATE tiny_item_activity SET event_ts = 0")
        db.execute("CREATE TABLE filler (text TEXT)")
        db.executemany("INSERT INTO filler VALUES (?)", [(f"{number:0100d}",) for number in range(20_000)])
        db.commit()
    code = f"""
import os, sqlite3
source, target = sqlite3.connect({str(bigger)!r}), sqlite3.connect({str(store / "online.db")!r})
source.backup(target, pages=64, progress=lambda status, left, total: os._exit(9) if left < total / 2 else None)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 9
    opened = OnlineLookup(place(store), spec(), "frozen")
    assert opened.rows("u1", ["i1"], given("i1")).columns["item_clicks_7d"].tolist() == [7]
    opened.close()
