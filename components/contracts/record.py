"""What a stage leaves behind for a person: `$ESMM_RUN_DIR/<stage>.json`.

kfp.local passes no message of a failed component on, and the exit handler hears only a task's name; so each
shell writes its own sentence here before it raises again.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from components.contracts.errors import EsmmError
from components.contracts.files import write_json
from components.contracts.paths import run_dir
from components.contracts.times import format_utc

RUNNING, SUCCEEDED, FAILED = "running", "succeeded", "failed"


@contextmanager
def stage(name: str) -> Iterator[dict[str, Any]]:
    """Records start, end, seconds and the error of a stage; yields a dict for facts worth keeping.

    Outside a run (no ESMM_RUN_DIR) nothing is written. An EsmmError is printed as one sentence and raised
    again; its code and message are in the record.
    """
    folder = run_dir()
    started = time.monotonic()
    facts: dict[str, Any] = {}
    record: dict[str, Any] = {"stage": name, "status": RUNNING, "started": format_utc(datetime.now(UTC))}

    def save(**changes: Any) -> None:
        record.update(changes, seconds=round(time.monotonic() - started, 3), facts=facts)
        if folder is not None:
            write_json(folder / f"{name}.json", record)

    save()
    try:
        yield facts
    except BaseException as error:
        code = error.code if isinstance(error, EsmmError) else type(error).__name__
        save(status=FAILED, code=code, message=str(error) or code)
        print(f"{name}: {error}", file=sys.stderr)
        raise
    save(status=SUCCEEDED)
