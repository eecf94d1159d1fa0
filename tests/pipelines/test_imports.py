"""`esmm import`: arguments become options, notes and facts are told, errors are one sentence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from components.contracts.dataset import read_info
from components.contracts.errors import UsageError
from pipelines.commands.arguments import slug, typed

LOG = (
    "id,who,item_id,at,click,conversion,hour,zip,price\na,1,i,2026-05-01 10:00,1,0,3,01234,1.5\nb,2,i,oops,0,0,4,1,2\n"
)


def test_a_csv_log(esmm: Any, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    mapping = [word for pair in ("impression_id=id", "user_id=who", "event_timestamp=at") for word in ("--map", pair)]
    done = esmm(
        *("import", "log", "--log", tmp_path / "log.csv", *mapping, "--context", "hour, zip:string"),
        *("--item-context", "price", "--timezone", "Europe/Berlin", "--out", tmp_path / "My shop"),
    )
    assert done.exit_code == 0, done.output
    assert (
        "note: 1 of 2 lines could not be read and lie in refused/ (first: log.csv line 3: TIME 'at=oops')"
        in done.stderr
    )
    assert "was taken as Europe/Berlin" in done.stderr
    assert "rows 1" in done.stdout
    assert f"next: esmm run --data {tmp_path / 'My shop'}" in done.stdout
    info = read_info(tmp_path / "My shop")
    assert info.name == "my_shop"
    assert info.context == {"hour": "int", "zip": "string", "price": "float"}
    assert info.item_context == ("price",)


def test_events(esmm: Any, tmp_path: Path) -> None:
    (tmp_path / "shown.csv").write_text("user_id,item_id,event_timestamp\n1,i,100000000000\n")
    (tmp_path / "clicks.csv").write_text("user_id,sku,event_timestamp\n1,i,1000000000\n")
    (tmp_path / "bought.csv").write_text("user_id,item_id,t\n1,i,1000000005\n")
    streams = ("--impressions", tmp_path / "shown.csv", "--clicks", tmp_path / "clicks.csv")
    streams += ("--conversions", tmp_path / "bought.csv", "--map-clicks", "item_id=sku")
    done = esmm("import", "events", *streams, "--out", tmp_path / "out")
    assert done.exit_code == 1
    assert "esmm: " in done.stderr
    assert "--epoch s, ms, us or ns" in done.stderr
    (tmp_path / "shown.csv").write_text("user_id,item_id,event_timestamp\n1,i,999999999\n")
    done = esmm(
        *("import", "events", *streams, "--map-conversions", "event_timestamp=t", "--epoch", "s"),
        *("--click-window", "60", "--conversion-window", "3600", "--attribute", "window", "--out", tmp_path / "out"),
    )
    assert done.exit_code == 0, done.output
    assert "rows 1, clicks 1, conversions 1, clicks_unmatched 0, conversions_unmatched 0" in done.stdout
    assert read_info(tmp_path / "out").conversion_window_seconds == 3600


def test_ali_ccp(esmm: Any, tmp_path: Path) -> None:
    def features(*triples: tuple[str, str, str]) -> str:
        return "\x01".join(f"{field}\x02{value}\x03{weight}" for field, value, weight in triples)

    item, user = features(("205", "7", "1.0")), features(("101", "9", "1.0"), ("121", "3", "1.0"))
    (tmp_path / "skeleton.csv").write_text("".join(f"{n},{n % 2},0,g{n % 5},1,{item}\n" for n in range(20)))
    (tmp_path / "common.csv").write_text("".join(f"g{n},2,{user}\n" for n in range(5)))
    files = ("--train-skeleton", tmp_path / "skeleton.csv", "--train-common", tmp_path / "common.csv")
    done = esmm("import", "ali-ccp", *files, "--out", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "rows 20" in done.stdout
    assert (read_info(tmp_path / "out").name, read_info(tmp_path / "out").split.kind) == ("ali_ccp", "hash")
    done = esmm("import", "ali-ccp", *files, "--test-common", tmp_path / "common.csv", "--out", tmp_path / "other")
    assert done.exit_code == 2
    assert "--test-skeleton" in done.stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--context", "hour:number"), "--context 'hour:number' is not NAME or NAME:TYPE with a type of int, float"),
        (("--context", "hour,hour"), "column 'hour' is given twice"),
        (("--context", "hour", "--item-context", "hour"), "'hour' is given both in --context and in --item-context"),
        (("--map", "user_id"), "--map 'user_id' is not NAME=VALUE"),
        (("--map", "clik=x"), "--map clik=...: no such column"),
        (("--timezone", "Mars"), "--timezone 'Mars' is no time zone"),
        (("--name", "My shop"), "dataset name 'My shop'"),
    ],
)
def test_bad_arguments_are_one_sentence(esmm: Any, tmp_path: Path, arguments: tuple[str, ...], message: str) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    done = esmm("import", "log", "--log", tmp_path / "log.csv", *arguments, "--out", tmp_path / "out")
    assert done.exit_code == 2
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_typed_and_slug() -> None:
    assert typed(" hour , zip:string,", "--context") == {"hour": None, "zip": "string"}
    for bad in ("hour:", ":int", "hour:strings"):
        with pytest.raises(UsageError, match="--context"):
            typed(bad, "--context")
    assert [slug(name) for name in ("My shop!", "2026", "a")] == ["my_shop", "d_2026", "a"]
