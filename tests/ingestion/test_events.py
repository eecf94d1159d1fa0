"""Three streams to one log: attribution against a plain reference on random timelines, and its rules by hand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from components.contracts.dataset import SplitConfig, data_fingerprint, read_imported, read_info
from components.contracts.errors import DataError, UsageError
from components.ingestion.ingest import IngestConfig, run
from components.ingestion.sources.events import Streams, import_events
from components.ingestion.sources.importing import ImportOptions

START = datetime(2026, 5, 1, 23, 59, 50, tzinfo=UTC)
CLICK_WINDOW, CONVERSION_WINDOW = 10, 20
UTC_US = pa.timestamp("us", tz="UTC")

Event = tuple[str | None, str, str, int]
"""impression_id, user_id, item_id, seconds after START."""


def at(second: int) -> datetime:
    return START + timedelta(seconds=second)


def table(events: list[Event], with_id: bool = True) -> pa.Table:
    columns = {
        "impression_id": pa.array([event[0] for event in events], pa.string()),
        "user_id": pa.array([event[1] for event in events], pa.string()),
        "item_id": pa.array([event[2] for event in events], pa.string()),
        "event_timestamp": pa.array([at(event[3]) for event in events], UTC_US),
    }
    return pa.table({name: column for name, column in columns.items() if with_id or name != "impression_id"})


def bring(
    folder: Path, shown: pa.Table, clicks: pa.Table, conversions: pa.Table, by: Any = None, **changes: Any
) -> tuple[Path, dict[str, Any]]:
    folder.mkdir(exist_ok=True)
    paths = []
    for name, events in (("shown", shown), ("clicks", clicks), ("bought", conversions)):
        paths.append(folder / f"{name}.parquet")
        pq.write_table(events, paths[-1])
    options: dict[str, Any] = {
        "out": folder / "out", "name": "mine", "click_window_seconds": CLICK_WINDOW,
        "conversion_window_seconds": CONVERSION_WINDOW,
    } | changes  # fmt: skip
    return options["out"], import_events(Streams(*paths), ImportOptions(**options), by)


def log(folder: Path) -> list[dict[str, Any]]:
    files = sorted(folder.glob("log/dt=*/*.parquet"))
    return [row for file in files for row in pq.read_table(str(file), partitioning=None).to_pylist()]


def labels(folder: Path) -> list[tuple[Any, ...]]:
    """impression_id, user, item, time, click's second, conversion's second, of every row of the log."""

    def second(time: datetime | None) -> int | None:
        return None if time is None else round((time - START).total_seconds())

    found = []
    for row in log(folder):
        clicked, bought = second(row["click_timestamp"]), second(row["conversion_timestamp"])
        assert (row["click"], row["conversion"]) == (int(clicked is not None), int(bought is not None))
        found.append(
            (row["impression_id"], row["user_id"], row["item_id"], second(row["event_timestamp"]), clicked, bought)
        )
    return sorted(found, key=str)


def greatest(candidates: list[tuple[int, str | None, int]]) -> int | None:
    """The number of the latest; of several the one with the greatest id (None is the least), then number."""
    best = max(candidates, key=lambda one: (one[0], one[1] is not None, one[1] or "", one[2]), default=None)
    return None if best is None else best[2]


def reference(
    shown: list[Event], clicks: list[Event], conversions: list[Event], clicks_by_id: bool, conversions_by_id: bool
) -> tuple[list[tuple[Any, ...]], dict[str, int]]:
    """The rules of components/ingestion/sources/attribution.py, event by event."""
    kept = sorted({event: number for number, event in enumerate(shown)}.items(), key=lambda pair: pair[1])
    counts = dict.fromkeys(("clicks_unmatched", "conversions_unmatched", "clicks_late", "conversions_late"), 0)
    first_click: dict[int, int] = {}
    touches: list[tuple[str, str, int, str | None, int]] = []
    for name, user, item, when in sorted(set(clicks), key=str):
        if clicks_by_id:
            found = [number for event, number in kept if name is not None and event[0] == name]
        else:
            number = greatest([(e[3], e[0], n) for e, n in kept if e[1:3] == (user, item) and e[3] <= when])
            found = [] if number is None else [number]
        counts["clicks_unmatched"] += not found
        counts["clicks_late"] += any(when > shown[number][3] + CLICK_WINDOW for number in found)
        for number in found:
            first_click[number] = min(first_click.get(number, when), when)
            its = shown[number]
            if its[3] <= when <= its[3] + CLICK_WINDOW:
                touches.append((its[1], its[2], when, its[0], number))
    first_bought: dict[int, int] = {}
    for name, user, item, when in sorted(set(conversions), key=str):
        if conversions_by_id:
            found = [number for event, number in kept if name is not None and event[0] == name]
        else:
            number = greatest([(t[2], t[3], t[4]) for t in touches if t[:2] == (user, item) and t[2] <= when])
            found = [] if number is None else [number]
        counts["conversions_unmatched"] += not found
        counts["conversions_late"] += any(
            number in first_click
            and (
                when > first_click[number] + CONVERSION_WINDOW or first_click[number] > shown[number][3] + CLICK_WINDOW
            )
            for number in found
        )
        for number in found:
            first_bought[number] = min(first_bought.get(number, when), when)
    rows = [(*event, first_click.get(number), first_bought.get(number)) for event, number in kept]
    return sorted(rows, key=str), counts


ids = st.sampled_from(["a", "b", "aa", "é", None])
seconds = st.sampled_from([0, 1, 2, 10, 11, 12, 20, 21, 30, 31, 32])
events = st.lists(
    st.tuples(ids, st.sampled_from(["u", "u", "v"]), st.sampled_from(["i", "i", "j"]), st.integers(0, 40)),
    min_size=1,
    max_size=12,
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@example([(None, "u", "i", 0), ("a", "u", "i", 0)], [("", "u", "i", 1)], [("", "u", "i", 2)], False, False)
@given(shown=events, clicks=events, conversions=events, clicks_by_id=st.booleans(), conversions_by_id=st.booleans())
def test_attribution_is_that_of_the_reference(
    tmp_path_factory: pytest.TempPathFactory,
    shown: list[Event],
    clicks: list[Event],
    conversions: list[Event],
    clicks_by_id: bool,
    conversions_by_id: bool,
) -> None:
    """Few users, items and seconds: ties, exact window edges, duplicates and repeated ids abound."""
    if not clicks_by_id:
        clicks = [(None, *event[1:]) for event in clicks]
    if not conversions_by_id:
        conversions = [(None, *event[1:]) for event in conversions]
    out, facts = bring(
        tmp_path_factory.mktemp("events"),
        table(shown),
        table(clicks, clicks_by_id),
        table(conversions, conversions_by_id),
    )
    expected, counts = reference(shown, clicks, conversions, clicks_by_id, conversions_by_id)
    assert labels(out) == expected
    assert {key: facts[key] for key in counts} == counts
    assert facts["duplicates"] == {
        "impressions": len(shown) - len(set(shown)),
        "clicks": len(clicks) - len(set(clicks)),
        "conversions": len(conversions) - len(set(conversions)),
    }
    assert facts["rows"] == len(set(shown))


def window(folder: Path, shown: list[Event], clicks: list[Event], bought: list[Event]) -> tuple[dict[str, Any], Any]:
    out, facts = bring(folder, table(shown), table(clicks, with_id=False), table(bought, with_id=False))
    return {row[0]: row[4:] for row in labels(out)}, facts


def test_last_touch_and_window_edges(tmp_path: Path) -> None:
    shown: list[Event] = [
        ("a", "u", "i", 0),
        ("b", "u", "i", 5),
        ("c", "u", "j", 5),
        ("d", "v", "i", 0),
        ("e", "v", "i", 6),
    ]
    clicks: list[Event] = [
        ("", "u", "i", 4),
        ("", "u", "i", 15),
        ("", "v", "i", 16),
        ("", "w", "i", 7),
        ("", "v", "i", 17),
    ]
    bought: list[Event] = [("", "u", "i", 14), ("", "u", "i", 35), ("", "v", "i", 37), ("", "u", "j", 9)]
    found, facts = window(tmp_path, shown, clicks, bought)
    assert found == {
        "a": (4, 14),  # the click at 4 came before b was shown; the purchase at 14 is after it alone
        "b": (15, 35),  # both at the very end of their windows: 5 + 10 and 15 + 20
        "c": (None, None),  # another item: its purchase has no click
        "d": (None, None),
        "e": (16, 37),  # bought 21 s after the click: stays in the log with its time, for ingestion to count as late
    }
    assert {key: facts[key] for key in ("clicks_unmatched", "conversions_unmatched")} == {
        "clicks_unmatched": 1, "conversions_unmatched": 1,
    }  # fmt: skip
    assert (facts["clicks_late"], facts["conversions_late"]) == (1, 1)


def test_ties_and_several(tmp_path: Path) -> None:
    shown: list[Event] = [("b", "u", "i", 0), ("a", "u", "i", 0), ("c", "v", "i", 0)]
    clicks: list[Event] = [("", "u", "i", 3), ("", "v", "i", 5), ("", "v", "i", 2), ("", "v", "i", 2)]
    bought: list[Event] = [("", "v", "i", 9), ("", "v", "i", 8)]
    found, facts = window(tmp_path, shown, clicks, bought)
    assert found == {"a": (None, None), "b": (3, None), "c": (2, 8)}
    assert facts["duplicates"] == {"impressions": 0, "clicks": 1, "conversions": 0}
    assert (facts["clicks"], facts["conversions"]) == (3, 2)


def test_a_late_click_takes_no_conversion_from_one_in_time(tmp_path: Path) -> None:
    shown: list[Event] = [("a", "u", "i", 0)]
    found, facts = window(tmp_path, shown, [("", "u", "i", 9), ("", "u", "i", 11)], [("", "u", "i", 12)])
    assert found == {"a": (9, 12)}
    assert (facts["clicks_late"], facts["conversions_late"]) == (1, 0)


def test_what_ingestion_makes_of_late_events(tmp_path: Path) -> None:
    """Importer and ingestion hold the same windows: what the one counts as late is what the other makes negative."""
    spread: list[Event] = [(f"s{n}", f"u{n}", "i", n * 3600) for n in range(60)]
    shown: list[Event] = [("a", "u", "i", 0), ("b", "v", "i", 0), ("c", "w", "i", 0), *spread]
    clicks: list[Event] = [("", "u", "i", 11), ("", "v", "i", 10), ("", "w", "i", 10)]
    bought: list[Event] = [("", "v", "i", 31), ("", "w", "i", 30)]
    out, facts = bring(
        tmp_path,
        table(shown),
        table(clicks, with_id=False),
        table(bought, with_id=False),
        split=SplitConfig(kind="hash"),
    )
    assert (facts["clicks_late"], facts["conversions_late"]) == (1, 1)
    config = IngestConfig(
        data=str(out), fingerprint=data_fingerprint(out), as_of="2026-05-09T00:00:00Z", split=SplitConfig(kind="hash")
    )
    found = run(config, tmp_path / "i", tmp_path / "f")
    assert (found["late_clicks"], found["late_conversions"]) == (1, 1)
    rows = [row for file in (tmp_path / "i").glob("dt=*/*.parquet") for row in pq.read_table(str(file)).to_pylist()]
    assert {row["impression_id"]: (row["click"], row["conversion"]) for row in rows if row["item_id"] == "i"}["a"] == (
        0,
        0,
    )
    assert sorted(row["impression_id"] for row in rows if row["click"]) == ["b", "c"]
    assert [row["impression_id"] for row in rows if row["conversion"]] == ["c"]


def test_the_stream_that_carries_ids_is_attributed_by_them(tmp_path: Path) -> None:
    shown: list[Event] = [("a", "u", "i", 0), ("b", "u", "i", 1)]
    clicks: list[Event] = [("a", "u", "i", 3), (None, "u", "i", 4), ("x", "u", "i", 5)]
    out, facts = bring(tmp_path, table(shown), table(clicks), table([("", "u", "i", 6)], with_id=False))
    assert [row[4:] for row in labels(out)] == [(3, 6), (None, None)]
    assert facts["clicks_unmatched"] == 2
    assert "Clicks are attributed by impression_id." in facts["notes"]
    assert any(note.startswith("Conversions are attributed by user, item and time") for note in facts["notes"])
    said, _ = bring(tmp_path, table(shown), table(clicks), table([("", "u", "i", 6)]), "window", out=tmp_path / "by")
    assert [row[4:] for row in labels(said)] == [(None, None), (3, 6)]


def test_contradictions_stay_for_validation(tmp_path: Path) -> None:
    """A conversion without a click, a click before its impression, one id with two contents."""
    shown: list[Event] = [("a", "u", "i", 5), ("b", "u", "i", 5), ("d", "u", "i", 5), ("d", "v", "i", 5)]
    out, facts = bring(
        tmp_path, table(shown), table([("b", "u", "i", 2), ("d", "u", "i", 6)]), table([("a", "u", "i", 9)])
    )
    assert [row[4:] for row in labels(out)] == [(None, 9), (2, None), (6, None), (6, None)]
    assert [facts[key] for key in ("clicks_unmatched", "conversions_unmatched", "conversions_late")] == [0, 0, 0]


def test_events_and_impressions_without_a_time_or_user_stay_where_they_can(tmp_path: Path) -> None:
    shown = pa.table(
        {
            "impression_id": ["a", "b"], "user_id": pa.array(["u", None]), "item_id": ["i", "i"],
            "event_timestamp": pa.array([at(0), None], UTC_US),
        }
    )  # fmt: skip
    clicks = pa.table(
        {"user_id": ["u", "u", None], "item_id": ["i"] * 3, "event_timestamp": pa.array([at(1), None, at(2)], UTC_US)}
    )
    out, facts = bring(tmp_path, shown, clicks, clicks.slice(0, 1))
    rows = {row["impression_id"]: row for row in log(out)}
    assert (rows["a"]["click"], rows["b"]["click"], rows["b"]["event_timestamp"]) == (1, 0, None)
    assert facts["clicks_unmatched"] == 2


def test_context_groups_and_generated_ids(tmp_path: Path) -> None:
    shown = table([("", "u", "i", 0), ("", "u", "i", 0), ("", "u", "i", 20)], with_id=False)
    shown = shown.append_column("slot", pa.array([1, 1, 2], pa.int16())).append_column("group_id", pa.array([4, 4, 5]))
    shown = shown.append_column("price", pa.array([1.5, 1.5, 2.5]))
    clicks = table([("", "u", "i", 20), ("", "u", "i", 3)], with_id=False)
    out, facts = bring(tmp_path, shown, clicks, clicks, context={"slot": None, "price": None}, item_context=("price",))
    # Of the equal two the last stays, and keeps its number; the click at 20 is the third's.
    assert [(row["impression_id"], row["slot"], row["group_id"], row["price"], row["click"]) for row in log(out)] == [
        ("row-1", 1, "4", 1.5, 1), ("row-2", 2, "5", 2.5, 1),
    ]  # fmt: skip
    assert facts["duplicates"]["impressions"] == 1
    assert facts["generated_ids"]
    info = read_info(out)
    assert (info.context, info.item_context) == ({"slot": "int", "price": "float"}, ("price",))
    assert (info.has_label_times, info.click_window_seconds, info.conversion_window_seconds) == (True, 10, 20)


def test_csv_streams_with_a_zone_and_foreign_names(tmp_path: Path) -> None:
    (tmp_path / "shown.csv").write_text("who,what,when\n007,i,2026-05-01 10:00:00\n8,i,2026-05-01 10:00:00\n")
    (tmp_path / "clicks.csv").write_text("visitor,sku,ms\n007,i,1777622401000\n007,i,1777622401000\n007,i,x\n")
    (tmp_path / "orders.csv").write_text("user_id,item_id,event_timestamp\n007,i,2026-05-01T08:00:02Z\n")
    streams = Streams(
        tmp_path / "shown.csv", tmp_path / "clicks.csv", tmp_path / "orders.csv",
        {"user_id": "who", "item_id": "what", "event_timestamp": "when"},
        {"user_id": "visitor", "item_id": "sku", "event_timestamp": "ms"},
    )  # fmt: skip
    options = ImportOptions(tmp_path / "out", "mine", timezone="Europe/Berlin", epoch="ms")
    facts = import_events(streams, options)
    rows = {row["user_id"]: row for row in log(tmp_path / "out")}
    assert rows["007"]["event_timestamp"] == datetime(2026, 5, 1, 8, tzinfo=UTC)
    assert rows["007"]["click_timestamp"] == datetime(2026, 5, 1, 8, 0, 1, tzinfo=UTC)
    assert rows["007"]["conversion_timestamp"] == datetime(2026, 5, 1, 8, 0, 2, tzinfo=UTC)
    assert rows["8"]["click"] == 0
    assert facts["refused"] == {"TIME": 1}
    account = read_imported(tmp_path / "out")
    assert account is not None
    assert (account.lines, account.refused) == (6, {"TIME": 1})
    assert any("Of 1 clicks, 0 belong to no impression and 0 came after their window" in note for note in account.notes)
    assert "Exact duplicates dropped: 1 clicks." in account.notes
    assert pq.read_table(tmp_path / "out" / "refused").to_pylist()[0] == {
        "file": "clicks.csv", "line": 4, "reason": "TIME", "text": "ms=x",
    }  # fmt: skip


def test_same_inputs_same_bytes(tmp_path: Path) -> None:
    shown: list[Event] = [(f"x{n % 900}", f"u{n % 7}", f"i{n % 5}", n * 37 % 300_000) for n in range(1000)]
    prints = []
    for name in ("one", "two"):
        out, _ = bring(tmp_path / name, table(shown), table(shown[:300]), table(shown[:100]))
        prints.append(data_fingerprint(out))
    assert prints[0] == prints[1]
    for file in out.glob("log/dt=*/*.parquet"):
        rows = pq.read_table(str(file), partitioning=None).to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["event_timestamp"], row["impression_id"]))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"by": "impression-id", "clicks": ["impression_id"]},
            UsageError,
            r"clicks .*have no impression_id to attribute by",
        ),
        ({"by": "impression-id", "shown": ["impression_id"]}, UsageError, r"the impressions have no impression_id"),
        (
            {"clicks": ["impression_id", "user_id"]},
            UsageError,
            r"clicks .*have no user_id, and no impression_id that the",
        ),
        ({"bought": ["event_timestamp"]}, DataError, r"conversions .* no column 'event_timestamp' .*--map-conversions"),
        (
            {"shown": ["user_id"]},
            DataError,
            r"impressions .* no column 'user_id' for user_id: .*--map-impressions user_id=",
        ),
        ({"click_window_seconds": 0}, UsageError, r"needs a click window and a conversion window above 0"),
        ({"context": {"hour": None}}, DataError, r"has no column 'hour' for hour"),
    ],
)
def test_refusals(tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str) -> None:
    tables = {name: table([("a", "u", "i", 0)]) for name in ("shown", "clicks", "bought")}
    for name in tables:
        tables[name] = tables[name].drop_columns(change.pop(name, []))
    with pytest.raises(error, match=message):
        bring(tmp_path, tables["shown"], tables["clicks"], tables["bought"], **change)
    assert not (tmp_path / "out").exists()


def test_unknown_mappings(tmp_path: Path) -> None:
    streams = Streams(tmp_path, tmp_path, tmp_path, map_clicks={"click": "x"})
    with pytest.raises(
        UsageError, match=r"--map-clicks click=\.\.\.: no such column; map one of impression_id, user_id"
    ):
        import_events(streams, ImportOptions(tmp_path / "out", "mine"))
