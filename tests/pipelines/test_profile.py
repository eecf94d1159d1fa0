"""`esmm profile`: only a good run becomes a reference, and a person is told what it changes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from components.validation.profile import ColumnProfile, DayProfile, Profile, TableProfile, load
from pipelines.cli import main


def profile(fingerprint: str = "d1", dataset: str = "shop", phone: float = 0.6, **columns: ColumnProfile) -> Profile:
    device = ColumnProfile(nulls=0.0, values=10_000, categories={"phone": phone, "web": 1 - phone})
    price = ColumnProfile(nulls=0.01, values=9900, quantiles=tuple(float(n) for n in range(21)))
    days = {f"2026-01-0{n}": DayProfile(rows=5000, clicks=500, conversions=50, volume=5000) for n in range(1, 5)}
    return Profile(
        dataset=dataset, as_of="2026-01-05T00:00:00Z", data_fingerprint=fingerprint, days=days,
        log=TableProfile(rows=20_000, columns={"device": device, "price": price, **columns}),
    )  # fmt: skip


class Runs:
    """A home with run folders, as runs leave them."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def add(self, name: str, found: Profile | None, **record: Any) -> None:
        folder = self.home / "runs" / name
        folder.mkdir(parents=True)
        if found is not None:
            (folder / "profile.json").write_text(found.to_text())
        if record:
            (folder / "record.json").write_text(json.dumps({"run": name, "data": "data/shop", **record}))

    def __call__(self, *arguments: object) -> Result:
        return CliRunner().invoke(main, ["--home", str(self.home), "profile", *map(str, arguments)])


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runs:
    monkeypatch.setenv("ESMM_HOME", "")  # the command sets it for its children: undone after the test
    return Runs(tmp_path / "home")


@pytest.mark.parametrize("status", ["promoted", "refused"])
def test_a_good_run_becomes_a_file_with_its_name_in_it(runs: Runs, tmp_path: Path, status: str) -> None:
    runs.add("r1", profile(), status=status)
    out = tmp_path / "references" / "shop.json"
    done = runs("accept", "--out", out)
    assert done.exit_code == 0, done.output
    assert load(out) == profile().model_copy(update={"run": "r1"})
    assert "20,000 usable impressions on 4 days, 2,000 clicks (10.0 %)" in done.output
    assert f"esmm run --data data/shop --reference {out}" in done.output


def test_the_latest_run_is_taken_unless_one_is_named(runs: Runs, tmp_path: Path) -> None:
    runs.add("r1", profile(phone=0.5), status="promoted")
    runs.add("r2", profile(phone=0.7), status="promoted")
    out = tmp_path / "shop.json"
    assert runs("accept", "--out", out).exit_code == 0
    assert load(out).run == "r2"
    assert runs("accept", "r1", "--out", out).exit_code == 0
    assert load(out).run == "r1"


@pytest.mark.parametrize(
    ("record", "said"), [({"status": "failed", "code": "DataGateClosed"}, "DataGateClosed"), ({}, "it has not ended")]
)
def test_a_run_that_was_not_good_is_refused_unless_forced(
    runs: Runs, tmp_path: Path, record: dict[str, str], said: str
) -> None:
    runs.add("r1", profile(), **record)
    out = tmp_path / "shop.json"
    refused = runs("accept", "--out", out)
    assert refused.exit_code == 1
    assert said in refused.output
    assert "--force" in refused.output
    assert not out.exists()
    assert runs("accept", "--out", out, "--force").exit_code == 0
    assert load(out).run == "r1"


def test_what_changes_against_the_file_that_is_there_is_said(runs: Runs, tmp_path: Path) -> None:
    out = tmp_path / "shop.json"
    old = ColumnProfile(nulls=0.0, values=10_000)
    out.write_text(profile(old=old).model_copy(update={"run": "r0"}).to_text())
    runs.add("r1", profile("d2", phone=0.1, new=old), status="promoted")
    done = runs("accept", "--out", out)
    assert done.exit_code == 0, done.output
    assert "held against the profile of run r0" in done.output
    assert "beyond its limit: category shares of log.device moved by" in done.output
    assert "'phone' from 60.0 % to 10.0 %" in done.output
    assert "new: log.new" in done.output
    assert "gone: log.old" in done.output
    assert load(out).log.columns["device"].categories["phone"] == 0.1


def test_the_same_data_again_changes_nothing_and_says_so(runs: Runs, tmp_path: Path) -> None:
    runs.add("r1", profile(), status="promoted")
    out = tmp_path / "shop.json"
    runs("accept", "--out", out)
    assert "was taken of this very data" in runs("accept", "--out", out).output


def test_a_file_that_is_no_profile_is_never_overwritten(runs: Runs, tmp_path: Path) -> None:
    runs.add("r1", profile(), status="promoted")
    out = tmp_path / "notes.json"
    out.write_text('{"mine": 1}')
    assert runs("accept", "--out", out, "--force").exit_code == 2
    assert out.read_text() == '{"mine": 1}'


def test_the_profile_of_another_dataset_is_not_overwritten(runs: Runs, tmp_path: Path) -> None:
    runs.add("r1", profile(), status="promoted")
    out = tmp_path / "other.json"
    out.write_text(profile(dataset="other").to_text())
    refused = runs("accept", "--out", out)
    assert refused.exit_code == 2
    assert "'other'" in refused.output
    assert load(out).dataset == "other"


def test_show_is_a_page_of_text_or_the_file(runs: Runs) -> None:
    runs.add("r1", profile(), status="promoted")
    shown = runs("show")
    assert shown.exit_code == 0
    assert "device" in shown.output
    assert "'phone' 60.0 %, 'web' 40.0 %" in shown.output
    assert "median 10 (nine in ten within 1 and 19)" in shown.output
    assert Profile.parse(runs("show", "r1", "--json").stdout) == profile().model_copy(update={"run": "r1"})


def test_what_is_not_there_is_said(runs: Runs) -> None:
    assert "esmm run" in runs("show").output
    runs.add("r1", None, status="failed")
    nothing = runs("show")
    assert nothing.exit_code == 1
    assert "ended before its data was measured" in nothing.output
    assert runs("show", "r9").exit_code == 2
