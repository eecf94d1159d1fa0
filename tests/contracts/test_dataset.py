"""A dataset folder: what it holds, what its fingerprint covers, and what an importer says of its source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from components.contracts.dataset import (
    DatasetInfo,
    Imported,
    SplitConfig,
    data_fingerprint,
    read_imported,
    read_info,
    truth_fingerprint,
    view_names,
    write_imported,
    write_info,
)
from components.contracts.errors import DataError, UsageError

INFO = DatasetInfo(
    name="shop", source="test", context={"hour": "int", "words": "strings", "words_weights": "floats"},
    item_context=("words", "words_weights"),
    split=SplitConfig(kind="published", test_from="2026-01-02T00:00:00Z", valid_share=0.1),
)  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    part = tmp_path / "data" / "log" / "dt=2026-01-01"
    part.mkdir(parents=True)
    (part / "part-0.parquet").write_bytes(b"log")
    write_info(tmp_path / "data", INFO)
    return tmp_path / "data"


def test_info_is_read_as_written(folder: Path) -> None:
    assert read_info(folder) == INFO


def test_what_is_no_dataset(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no folder: make one"):
        read_info(tmp_path / "nowhere")
    (folder / "log" / "dt=2026-01-01" / "part-0.parquet").unlink()
    with pytest.raises(DataError, match="the dataset has no impressions"):
        read_info(folder)
    (folder / "dataset.json").unlink()
    with pytest.raises(DataError, match=r"has no dataset\.json"):
        read_info(folder)


def test_a_split_of_no_known_kind() -> None:
    with pytest.raises(UsageError, match=r"split\.kind"):
        DatasetInfo.parse({"name": "x", "source": "y", "split": {"kind": "guess"}})


def test_an_importers_account_is_optional_and_read_as_written(folder: Path) -> None:
    assert read_imported(folder) is None
    account = Imported(lines=10, refused={"TIME": 2}, truncated=("a.csv.gz",), notes=("Said.",))
    write_imported(folder, account)
    assert read_imported(folder) == account
    (folder / "import.json").write_text('{"lines": "many"}')
    with pytest.raises(UsageError, match=r"import\.json: lines = 'many'"):
        read_imported(folder)


def _account(folder: Path) -> None:
    write_imported(folder, Imported(lines=1))


def _refused(folder: Path) -> None:
    (folder / "refused").mkdir()
    (folder / "refused" / "part-0.parquet").write_bytes(b"x")


def _log(folder: Path) -> None:
    (folder / "log" / "dt=2026-01-01" / "part-0.parquet").write_bytes(b"other")


def _view(folder: Path) -> None:
    (folder / "features" / "v").mkdir(parents=True)
    (folder / "features" / "v" / "part-0.parquet").write_bytes(b"x")


def _info(folder: Path) -> None:
    write_info(folder, INFO.model_copy(update={"seed": 1, "name": "other"}))


@pytest.mark.parametrize("change", [_account, _refused, _log, _view, _info])
def test_the_fingerprint_covers_what_a_stage_may_read(folder: Path, change: Callable[[Path], None]) -> None:
    before = data_fingerprint(folder)
    assert before == data_fingerprint(folder)
    change(folder)
    assert data_fingerprint(folder) != before


def test_truth_and_other_files_are_not_in_the_datas_fingerprint(folder: Path) -> None:
    before = data_fingerprint(folder)
    (folder / "truth").mkdir()
    (folder / "truth" / "t.parquet").write_bytes(b"x")
    (folder / "README").write_text("x")
    assert data_fingerprint(folder) == before
    assert truth_fingerprint(folder)


def test_view_names(folder: Path) -> None:
    assert view_names(folder) == ()
    _view(folder)
    (folder / "features" / "empty").mkdir()
    assert view_names(folder) == ("v",)
