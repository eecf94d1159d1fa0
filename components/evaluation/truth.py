"""The simulator's truth of the test impressions: what a model that knew everything would have said."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from components.contracts import columns as c
from components.contracts import duck
from components.contracts.dataset import TRUTH, truth_fingerprint
from components.contracts.errors import DataError
from components.evaluation.metrics import Array, Outcome, Predicted, auc, entire_space, log_loss
from components.evaluation.scored import Split

COLUMNS = (c.TRUE_P_CLICK, c.TRUE_P_CLICK_REFERENCE, c.TRUE_P_CONVERSION_DO_CLICK, c.TRUE_P_CONVERSION_CLICK)


@dataclass(frozen=True)
class Truth:
    """Probabilities of each test row, float64 [B] each, in the split's order."""

    click: Array
    click_reference: Array
    conversion_do_click: Array
    conversion_click: Array


def load_truth(data: Path, fingerprint: str, split: Split) -> Truth | None:
    """Joins the truth to the split's rows by impression_id; None where the data has no truth.

    Raises:
        DataError: if the truth is not what the run was planned with, or does not cover every row.
    """
    if not fingerprint:
        return None
    if truth_fingerprint(data) != fingerprint:
        raise DataError(f"{data / TRUTH} changed since the run was planned: start the run again")
    rows = pa.table({"row": np.arange(len(split)), c.IMPRESSION_ID: split.impression_ids})
    with duck.connect() as connection:
        connection.register("rows", rows)
        names = ", ".join(f"truth.{name}::DOUBLE AS {name}" for name in COLUMNS)
        table = connection.sql(
            f"SELECT {names} FROM rows LEFT JOIN read_parquet($files) truth USING ({c.IMPRESSION_ID}) ORDER BY row",
            params={"files": str(data / TRUTH / "*" / "*.parquet")},
        ).to_arrow_table()
    found = {name: np.asarray(table[name].to_numpy(), dtype=np.float64) for name in COLUMNS}
    if table.num_rows != len(split) or any(not bool(np.isfinite(values).all()) for values in found.values()):
        raise DataError(
            f"{data / TRUTH} does not hold each test impression exactly once: simulate the data again, "
            "or remove the folder"
        )
    return Truth(*(found[name] for name in COLUMNS))


def oracle(truth: Truth, outcome: Outcome) -> dict[str, float]:
    """The truth scored as if it were a model, against the logged labels: the most any model can reach here.

    Keys without suffix are at the reference position (P(click | do(position = reference))), `_logged` at the logged.
    """
    pcvr = truth.conversion_click
    reference = Predicted(truth.click_reference, pcvr, truth.click_reference * pcvr)
    logged = Predicted(truth.click, pcvr, truth.click * pcvr)
    found = {
        "ctr_auc": auc(reference.pctr, outcome.click),
        "ctcvr_auc": auc(reference.pctcvr, outcome.conversion),
        "cvr_auc_clicked": auc(pcvr[outcome.click], outcome.conversion[outcome.click]),
        "ctr_auc_logged": auc(logged.pctr, outcome.click),
        "ctcvr_auc_logged": auc(logged.pctcvr, outcome.conversion),
        "ctr_log_loss_logged": log_loss(logged.pctr, outcome.click),
        "ctcvr_log_loss_logged": log_loss(logged.pctcvr, outcome.conversion),
        "cvr_log_loss_clicked": log_loss(pcvr[outcome.click], outcome.conversion[outcome.click]),
    }
    found |= entire_space(truth.conversion_do_click, truth.conversion_do_click)
    return {name: value for name, value in found.items() if value is not None}
