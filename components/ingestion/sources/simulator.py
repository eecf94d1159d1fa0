"""Writes a simulated shop as a dataset folder: log, feature snapshots, and the truth that evaluation alone reads."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from components.contracts import columns as c
from components.contracts.dataset import LOG, TRUTH, DatasetInfo, SplitConfig, write_info
from components.contracts.files import new_folder
from components.ingestion.sources.simulator_dirty import NONE, Log, soil
from components.ingestion.sources.simulator_snapshots import names, times, words, write_views
from components.ingestion.sources.simulator_truth import Outcomes, draw_outcomes, make_mechanism, truth_of
from components.ingestion.sources.simulator_world import (
    DAY,
    DEVICES,
    Exposures,
    Ints,
    SimulatorConfig,
    build_world,
    draw_exposures,
)

NAME = "shop"
CONTEXT = {"position": "int", "hour": "int", "device": "string"}

__all__ = ["NAME", "SimulatorConfig", "simulate"]


def simulate(config: SimulatorConfig, out: Path) -> dict[str, Any]:
    """Writes a dataset (contracts/dataset.py) to `out`, all or nothing; equal configs give equal bytes.

    The log holds what is known at its end, unattributed: clicks and conversions after their windows are there with
    their times, later ones are not. The truth has one row an impression, of clean rows and dirty alike.

    Returns:
        Facts: rows, clicks and conversions in the clean log, rows of each view, dirty rows by kind.

    Raises:
        DataError: if `out` exists and is not an empty folder.
        UsageError: if `config.start` is no time.
    """
    info = DatasetInfo.parse(
        {
            "name": NAME,
            "source": f"simulator {config.to_json()}",
            "context": CONTEXT,
            "click_window_seconds": config.click_window_seconds,
            "conversion_window_seconds": config.conversion_window_seconds,
            "has_label_times": True,
            "split": SplitConfig(kind="time", valid_days=config.valid_days, test_days=config.test_days),
            "recipe": "nightly",
            "clock": "frozen",
        }
    )
    with new_folder(out) as folder:
        world = build_world(config)
        shown = draw_exposures(config, world)
        mechanism = make_mechanism(config, world, shown, info.reference_position)
        truth = truth_of(mechanism)
        outcomes = draw_outcomes(config, shown, mechanism)
        views = write_views(config, world, shown, outcomes, folder)
        clean = _log(config, shown, outcomes)
        log, dirty = soil(config, clean)
        width = len(str(len(shown)))
        ids = pa.array([f"m{number:0{width}d}" for number in range(len(shown))])
        probabilities = {
            c.TRUE_P_CLICK: truth.p_click,
            c.TRUE_P_CLICK_REFERENCE: truth.p_click_reference,
            c.TRUE_P_CONVERSION_DO_CLICK: truth.p_conversion_do_click,
            c.TRUE_P_CONVERSION_CLICK: truth.p_conversion_click,
        }
        _write_days(config, log.day, _table(config, log, ids), folder / LOG)
        _write_days(config, log.day, pa.table({c.IMPRESSION_ID: ids, **probabilities}), folder / TRUTH)
        write_info(folder, info)
    return {
        "rows": len(shown),
        "clicks": int(clean.click.sum()),
        "conversions": int(clean.conversion.sum()),
        "days": config.days,
        "views": views,
        "dirty": dirty,
    }


def _log(config: SimulatorConfig, shown: Exposures, outcomes: Outcomes) -> Log:
    """What is known at the last midnight."""
    end = config.days * DAY
    click = outcomes.click & (outcomes.click_time < end)
    conversion = outcomes.conversion & (outcomes.conversion_time < end)
    return Log(
        day=shown.day,
        impression=np.arange(len(shown)),
        user=shown.user,
        item=shown.item,
        time=shown.time,
        time_null=np.zeros(len(shown), np.bool_),
        position=shown.position,
        hour=shown.hour,
        device=shown.device,
        click=click.astype(np.int64),
        click_time=np.where(click, outcomes.click_time, NONE),
        conversion=conversion.astype(np.int64),
        conversion_time=np.where(conversion, outcomes.conversion_time, NONE),
    )


def _table(config: SimulatorConfig, log: Log, ids: pa.Array) -> pa.Table:
    def event(time: Ints) -> pa.Array:
        return times(config, time, time == NONE)

    return pa.table(
        {
            c.IMPRESSION_ID: ids.take(pa.array(log.impression)),
            c.USER_ID: names("u", log.user, log.user == NONE),
            c.ITEM_ID: names("i", log.item, log.item == NONE),
            c.EVENT_TIMESTAMP: times(config, log.time, log.time_null),
            c.POSITION: log.position,
            "hour": log.hour,
            "device": words(DEVICES, log.device),
            c.CLICK: pa.array(log.click, mask=log.click == NONE),
            c.CLICK_TIMESTAMP: event(log.click_time),
            c.CONVERSION: log.conversion,
            c.CONVERSION_TIMESTAMP: event(log.conversion_time),
        }
    )


def _write_days(config: SimulatorConfig, day_N: Ints, table: pa.Table, folder: Path) -> None:
    """Rows are in order of their day, so each partition is one slice."""
    edges = np.searchsorted(day_N, np.arange(config.days + 1))
    for day, (begin, end) in enumerate(pairwise(edges)):
        if end > begin:
            part = folder / f"{c.PARTITION}={config.date(day)}"
            part.mkdir(parents=True)
            pq.write_table(table.slice(begin, end - begin), part / "part-0.parquet")
