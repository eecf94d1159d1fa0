"""A small search config, and results as trainings would leave them."""

import json

from components.contracts.files import write_json, write_manifest
from components.contracts.trial import TRIAL_JSON, Result
from components.search.config import SearchConfig, SweepConfig

SPACE = {"candidate": ["esmm", "base"], "training.lr": {"low": 1e-4, "high": 1e-1, "log": True}}
TRAIN = {
    "training": {"seed": 3, "lr": 0.002, "hidden": [8], "candidates": {"esmm": {"experts": 4}, "base": {"experts": 1}}},
    "dataset": "shop",
}


def search(**sweep):
    return SearchConfig(
        sweep=SweepConfig.parse({"space": SPACE, **sweep}), candidate="esmm", train=json.dumps(TRAIN), code="c"
    )


def result(asked, value, **more):
    facts = {"steps": 10, "best_step": 10, "rows": 100, "started": "2026-01-01T00:00:00Z"}
    return Result(
        trial=asked.trial, rung=asked.rung, share=asked.share, value=value, **{**facts, **more},
        ended="2026-01-01T00:01:00Z",
    )  # fmt: skip


def state(folder, asked, value, **more):
    """A state artifact; its file `weights` says which trial and rung it is of."""
    folder.mkdir(parents=True)
    write_json(folder / TRIAL_JSON, result(asked, value, **more).model_dump(mode="json"))
    if value is not None:
        (folder / "weights").write_text(f"{asked.trial} at {asked.rung}")
    write_manifest(folder)
    return folder
