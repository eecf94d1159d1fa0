"""What a finished search tells a person (text) and a script (JSON), from the run folder alone."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from components.contracts.files import read_json
from components.contracts.paths import Home
from components.contracts.trial import STUDY_LOG
from components.search.choose import BEST_JSON, TRIALS_JSON
from pipelines.summary import command


def result(run_dir: Path) -> dict[str, Any]:
    """The object that `esmm run --sweep --json` prints; what a search that failed did not come to is None or empty."""
    record = read_json(run_dir / "record.json")
    stages: dict[str, dict[str, Any]] = record["stages"]
    ended = record["status"] != "failed"
    return {
        "run": record["run"],
        "status": record["status"],
        "reasons": record["reasons"],
        **{key: record[key] for key in ("data", "recipe", "as_of")},
        "best": stages["choose"]["facts"] if ended else None,
        "trials": read_json(run_dir / TRIALS_JSON) if ended else [],
        "config": str(run_dir / BEST_JSON) if ended else None,
        "study": str(run_dir / STUDY_LOG) if ended else None,
        "seconds": {name: stage["seconds"] for name, stage in stages.items() if stage.get("seconds") is not None},
        "cached": [name for name, stage in stages.items() if stage.get("cached")],
    }


def text(found: dict[str, Any], home: Home) -> str:
    """The end of `esmm run --sweep`: the trials, the best one first, and the command that trains by it."""
    lines = [""]
    if found["trials"]:
        keys = sorted({key for trial in found["trials"] for key in trial["params"]})
        rows = [["trial", "rung", "state", "loss", *(key.removeprefix("training.") for key in keys)]]
        rows += [_row(trial, keys) for trial in sorted(found["trials"], key=_order)]
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
        lines.append("(loss: CTCVR log loss on validation at the trial's last rung; rungs count from 0)")
    if found["cached"]:
        lines.append("reused from the cache: " + ", ".join(found["cached"]))
    if found["status"] == "failed":
        run = home.runs / found["run"]
        lines += ["FAILED", *(f"  - {reason}" for reason in found["reasons"])]
        return "\n".join([*lines, f"record: {run / 'record.json'}, log: {run / 'kfp.log'}"])
    best = found["best"]
    lines.append(f"best: trial {best['best']}, {best['value']:.6f} at rung {best['rung']} of {best['last_rung']}")
    own = best["recipe"]
    if own is not None:
        lines.append(f"the recipe as it stands: trial 0, {own['value']:.6f} at rung {own['rung']}")
    lines.append(f"study: {found['study']} (an Optuna journal)")
    home_option = "" if home.root == Path("var").resolve() else f"--home {home.root} "
    again = [f"--data={found['data']}", f"--recipe={found['recipe']}", f"--as-of={found['as_of']}"]
    lines.append(f"next: {command()} {home_option}run {shlex.join([*again, '--config=' + found['config']])}")
    return "\n".join(lines)


def _order(trial: dict[str, Any]) -> tuple[bool, int, float, int]:
    """Diverged ones last, then the highest rung first, then the lowest value."""
    value = float("inf") if trial["value"] is None else trial["value"]
    return trial["state"] == "diverged", -trial["rung"], value, trial["trial"]


def _row(trial: dict[str, Any], keys: list[str]) -> list[str]:
    loss = "-" if trial["value"] is None else f"{trial['value']:.6f}"
    return [
        str(trial["trial"]),
        "-" if trial["rung"] < 0 else str(trial["rung"]),
        trial["state"],
        loss,
        *(_short(trial["params"][key]) for key in keys),
    ]


def _short(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
