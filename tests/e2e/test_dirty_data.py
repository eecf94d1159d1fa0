"""The dirty-data matrix: what can be wrong with a log, and the one stated outcome of each, from import to data gate.

An outcome is `clean`, a quarantine with its code and count, a gate closed with a sentence, or a refusal with one.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from components.contracts.dataset import LOG, data_fingerprint, read_info, view_names
from components.contracts.errors import DataError, DataGateClosed
from components.contracts.files import read_manifest
from components.ingestion.ingest import IngestConfig, default_as_of
from components.ingestion.ingest import run as ingest
from components.ingestion.sources.importing import ImportOptions
from components.ingestion.sources.joined import import_log
from components.validation.profile import load
from components.validation.validate import ValidateConfig
from components.validation.validate import run as validate
from pipelines.feature_spec import feature_spec

DAYS, A_DAY = 14, 300
FIRST = datetime(2026, 3, 1, tzinfo=UTC)
CONTEXT = ("hour", "price", "page")


def days(count=DAYS, a_day=A_DAY, seed=0):
    """A clean log, one table a day: 20 % clicks, 30 % of them convert, all within their windows."""
    random, made = np.random.default_rng(seed), []
    for day in range(count):
        second = np.sort(random.integers(0, 86_400, a_day))
        event = [FIRST + timedelta(days=day, seconds=int(s)) for s in second]
        click = random.random(a_day) < 0.2
        conversion = click & (random.random(a_day) < 0.3)
        stamp = pa.timestamp("us", tz="UTC")
        made.append(
            pa.table(
                {
                    "impression_id": [f"i{day}-{n}" for n in range(a_day)],
                    "user_id": pa.array(random.integers(0, 200, a_day)),
                    "item_id": pa.array(random.integers(0, 50, a_day)),
                    "event_timestamp": pa.array(event, stamp),
                    "click": pa.array(click.astype(np.int64)),
                    "click_timestamp": pa.array(
                        [e + timedelta(seconds=60) if c else None for e, c in zip(event, click, strict=True)], stamp
                    ),
                    "conversion": pa.array(conversion.astype(np.int64)),
                    "conversion_timestamp": pa.array(
                        [e + timedelta(seconds=600) if c else None for e, c in zip(event, conversion, strict=True)],
                        stamp,
                    ),
                    "hour": pa.array(second // 3600),
                    "price": pa.array(np.round(random.lognormal(3, 0.5, a_day), 2)),
                    "page": pa.array(random.choice(["home", "search", "café"], a_day)),
                }
            )
        )
    return made


def put(table, column, values, kind=None):
    """The table with a column replaced; `values` a list, or a function of the old values."""
    old = table.column(column)
    new = values(old.to_pylist()) if callable(values) else values
    return table.set_column(table.column_names.index(column), column, pa.array(new, kind or old.type))


def some(value, count=5):
    """Replaces the first few values."""
    return lambda old: [value] * count + old[count:]


@dataclass
class Outcome:
    """All that happened to a log. `refused` and `closed` are sentences, "" where it got further."""

    refused: str = ""
    closed: str = ""
    quarantined: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    rows: dict[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def clean(self):
        return not (self.refused or self.closed or self.quarantined)


class Way:
    """From tables, one a file, to the data gate's answer."""

    def __init__(self, folder):
        self.folder = folder
        self.number = 0

    def __call__(self, tables, as_of=None, spoil=None, reference=None, context=CONTEXT):
        self.number += 1
        here = self.folder / str(self.number)
        (here / "raw").mkdir(parents=True)
        for number, table in enumerate(tables):
            if isinstance(table, bytes):
                (here / "raw" / f"{number:03}.parquet").write_bytes(table)
            else:
                pq.write_table(table, here / "raw" / f"{number:03}.parquet")
        data = here / "data"
        try:
            options = ImportOptions(
                data, "dirty", dict.fromkeys(context), click_window_seconds=3600.0, conversion_window_seconds=86400.0
            )
            import_log(here / "raw", {}, options)
            if spoil:
                spoil(data)
            return self._judge(data, here, as_of, reference)
        except DataGateClosed as error:
            return Outcome(closed=str(error), **self._quarantine(here))
        except DataError as error:
            return Outcome(refused=str(error))

    def _judge(self, data, here, as_of, reference):
        info, fingerprint = read_info(data), data_fingerprint(data)
        config = IngestConfig(
            data=str(data), fingerprint=fingerprint, as_of=as_of or default_as_of(data), split=info.split
        )
        ingest(config, here / "impressions", here / "features")
        validate(
            ValidateConfig(
                spec=feature_spec(info, view_names(data)), info=info, reference=reference, data_fingerprint=fingerprint
            ),
            *(here / name for name in ("impressions", "features", "clean", "quarantine", "docs.html")),
        )
        return Outcome(**self._quarantine(here), rows=read_manifest(here / "clean")["rows"])

    def _quarantine(self, here):
        if not (here / "quarantine").is_dir():
            return {}
        facts = read_manifest(here / "quarantine")
        return {"quarantined": facts["rows"], "reasons": facts["reasons"]}

    def profile(self):
        """What the last log looked like: the reference a person would accept."""
        return load(self.folder / str(self.number) / "quarantine" / "profile.json")


@pytest.fixture
def way(tmp_path):
    return Way(tmp_path)


def test_a_clean_log_is_clean(way):
    found = way(days())
    assert found.clean
    assert found.rows["train"] + found.rows["valid"] + found.rows["test"] > DAYS * A_DAY / 2


@pytest.mark.parametrize(
    ("column", "sentence"),
    [("page", "context column 'page' is null in every usable row"), ("click", "NULL_LABEL"), ("user_id", "NULL_ID")],
)
def test_all_null_column_closes_the_gate(way, column, sentence):
    found = way([put(table, column, [None] * len(table)) for table in days()])
    assert sentence in found.closed + " ".join(found.reasons)
    assert found.closed


def test_infinity_is_quarantined(way):
    tables = days()
    tables[3] = put(tables[3], "price", some(float("inf"), 2))
    tables[4] = put(tables[4], "price", some(float("-inf"), 3))
    found = way(tables)
    assert not found.closed
    # -inf is below the declared minimum as well.
    assert found.quarantined == found.reasons["CONTEXT_INFINITE"] == 5


def test_nan_label_is_quarantined(way):
    """The import refuses labels that are floats; in a dataset that somebody else wrote, NaN is a bad row."""
    floats = [put(t, "click", lambda v: [float(x) for x in v], pa.float64()) for t in days()]
    assert "is DOUBLE and no label" in way(floats).refused

    def retype(data):
        for file in sorted((data / LOG).glob("*/*.parquet")):
            table = pq.ParquetFile(file).read()
            values = some(float("nan")) if "dt=2026-03-04" in str(file) else list
            pq.write_table(put(table, "click", lambda v, f=values: f([float(x) for x in v]), pa.float64()), file)

    found = way(days(), spoil=retype)
    assert not found.closed
    assert found.reasons["NULL_LABEL"] == found.quarantined == 5


def test_float_ids_are_refused(way):
    found = way([put(t, "user_id", lambda v: [float(x) for x in v], pa.float64()) for t in days()])
    assert "floating-point ids" in found.refused
    assert "user_id" in found.refused


def test_negative_price_is_quarantined(way):
    tables = days()
    tables[2] = put(tables[2], "price", some(-1.0))
    found = way(tables)
    assert found.reasons == {"RANGE": 5}
    assert found.quarantined == 5
    assert not found.closed


def test_future_rows_are_invisible_before_as_of(way):
    tables = days()
    late = datetime(2031, 1, 1, tzinfo=UTC)
    tables[5] = put(tables[5], "event_timestamp", some(late))
    found = way(tables, as_of="2026-03-15T00:00:00Z")
    assert not found.closed
    assert found.rows["invisible"] == 5
    # Without an as-of the broken clock sets it, and nothing is left of the days before it.
    assert "choose" in way(tables).refused


def test_nanosecond_times_and_other_zones_are_converted(way):
    plain = way(days()).rows
    zoned = [
        put(t, "event_timestamp", t.column("event_timestamp").to_pylist(), pa.timestamp("ns", tz="Asia/Tokyo"))
        for t in days()
    ]
    found = way(zoned)
    assert found.clean
    assert found.rows == plain


def test_duplicate_impressions_are_quarantined_with_all_copies(way):
    tables = days()
    tables[2] = pa.concat_tables([tables[2], tables[2].slice(0, 4)])
    # ... also across days: one id, two days.
    tables[7] = put(tables[7], "impression_id", lambda old: ["i6-0", *old[1:]])
    found = way(tables)
    assert found.reasons == {"DUPLICATE_ID": 10}
    assert found.quarantined == 10
    assert not found.closed


def test_missing_day_closes_the_gate(way):
    tables = days()
    del tables[4]
    found = way(tables)
    assert "2026-03-05" in found.closed
    assert found.quarantined == 0


def test_one_day_twice_closes_the_gate(way):
    tables = days()
    found = way([*tables, tables[4]])
    assert "2026-03-05 (mostly DUPLICATE_ID)" in found.closed
    assert found.reasons == {"DUPLICATE_ID": 2 * A_DAY}


def test_empty_day_closes_the_gate(way):
    def empty(data):
        for file in (data / LOG / "dt=2026-03-05").glob("*.parquet"):
            pq.write_table(pq.ParquetFile(file).read().slice(0, 0), file)

    assert "2026-03-05" in way(days(), spoil=empty).closed


def test_renamed_column(way):
    """In every file the import names it; in one day's file, that day has no labels and closes the gate."""
    renamed = [t.rename_columns(["clicked" if n == "click" else n for n in t.column_names]) for t in days()]
    assert "no column 'click'" in way(renamed).refused
    tables = days()
    tables[4] = renamed[4]
    found = way(tables)
    assert "2026-03-05 (mostly NULL_LABEL)" in found.closed


def test_type_change_between_days_is_refused_naming_the_file(way):
    tables = days()
    tables[4] = put(tables[4], "price", lambda v: [f"{x} EUR" for x in v], pa.string())
    found = way(tables)
    assert "004.parquet" in found.refused
    assert "price" in found.refused


def test_type_change_in_the_dataset_closes_the_gate(way):
    def retype(data):
        for file in (data / LOG / "dt=2026-03-05").glob("*.parquet"):
            table = pq.ParquetFile(file).read()
            pq.write_table(put(table, "price", lambda v: [str(x) for x in v], pa.string()), file)

    found = way(days(), spoil=retype)
    assert "price" in found.closed
    assert "string" in found.closed


def test_parquet_cut_short_is_refused_naming_the_file(way, tmp_path):
    tables = days()
    pq.write_table(tables[4], tmp_path / "whole.parquet")
    whole = (tmp_path / "whole.parquet").read_bytes()
    found = way([*tables[:4], whole[: len(whole) // 2], *tables[5:]])
    assert "004.parquet" in found.refused


def test_tenfold_day_closes_the_gate_against_a_reference(way):
    assert way(days()).clean
    reference = way.profile()
    tables = days(seed=1)
    assert way(tables, reference=reference).clean
    tables[5] = days(a_day=10 * A_DAY, seed=2)[5]
    tables[5] = put(tables[5], "impression_id", lambda old: [f"big-{i}" for i in old])
    found = way(tables, reference=reference)
    assert "2026-03-06" in found.closed
    assert "busiest day" in found.closed
    assert found.quarantined == 0


@pytest.mark.parametrize("clicked", [0, 1])
def test_click_rate_of_zero_or_one_closes_the_gate(way, clicked):
    def all_one(table):
        event = table.column("event_timestamp").to_pylist()
        table = put(table, "click", [clicked] * len(table))
        table = put(table, "click_timestamp", [e + timedelta(seconds=60) if clicked else None for e in event])
        if not clicked:
            table = put(table, "conversion", [0] * len(table))
            table = put(table, "conversion_timestamp", [None] * len(table))
        return table

    found = way([all_one(table) for table in days()])
    assert f"the click rate of the usable rows is {clicked}" in found.closed
    assert found.quarantined == 0


def test_emoji_is_clean_and_nul_is_quarantined(way):
    tables = [put(t, "item_id", lambda v: [str(x) for x in v], pa.string()) for t in days()]
    tables[1] = put(tables[1], "item_id", some("🛒 café", 20))
    tables[1] = put(tables[1], "page", some("👟"))
    assert way(tables).clean
    tables[2] = put(tables[2], "item_id", some("a\x00b", 3))
    tables[3] = put(tables[3], "item_id", some("c\x00", 2))
    found = way(tables)
    assert found.reasons == {"ID_CHARACTERS": 5}
    assert found.quarantined == 5
    assert not found.closed


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint64()])
def test_ids_beyond_int32_keep_every_digit(way, kind):
    big = 2**62 + 1 if kind == pa.int64() else 2**63 + 5
    tables = [put(t, "user_id", lambda v: [big + x for x in v], kind) for t in days()]
    assert way(tables).clean
    kept = {
        user
        for file in (way.folder / str(way.number) / "clean").glob("*/*.parquet")
        for user in pq.ParquetFile(file).read(columns=["user_id"]).column("user_id").to_pylist()
    }
    assert len(kept) > 150
    assert kept <= {str(big + x) for x in range(200)}
