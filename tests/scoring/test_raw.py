"""Columns of Arrow tables as the encoder wants them."""

import numpy as np
import pyarrow as pa
import pytest

from components.contracts.errors import DataError
from components.scoring.raw import columns_from_table

TABLE = pa.table(
    {
        "text": pa.array(["a", None, ""]),
        "coded": pa.array(["x", None, "x"]).dictionary_encode(),
        "whole": pa.array([1, 2, 3], pa.int32()),
        "holes": pa.array([1, None, 3], pa.int64()),
        "single": pa.array([0.5, None, 1.5], pa.float32()),
        "flag": pa.array([True, None, False]),
    }
)


@pytest.mark.parametrize("table", [TABLE, pa.concat_tables([TABLE[:1], TABLE[1:]])])
def test_types(table: pa.Table) -> None:
    columns = columns_from_table(table, TABLE.column_names)
    assert columns["text"].tolist() == ["a", None, ""]
    assert columns["coded"].tolist() == ["x", None, "x"]
    assert columns["whole"].dtype == np.int64
    assert columns["holes"].dtype == np.float64
    assert np.isnan(columns["holes"]).tolist() == [False, True, False]
    assert columns["single"].dtype == np.float64
    assert columns["flag"].tolist() == [True, None, False]


def test_only_the_names_asked_for_and_the_missing_ones_named() -> None:
    assert list(columns_from_table(TABLE, ["flag", "text"])) == ["flag", "text"]
    with pytest.raises(DataError, match="no column gone, lost"):
        columns_from_table(TABLE, ["text", "gone", "lost"])
