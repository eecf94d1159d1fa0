"""The last gate: the Bento as built, started away from the project, must score as the model does offline.

Expected scores come from features retrieved offline at the materialization's end, the answers through the online
store; so a difference is a bug of packaging, materialization, lookup or encoding.
"""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from components.contracts.artifacts import EXPECTED, EXPECTED_HOME
from components.contracts.columns import GROUP_ID, ITEM_ID, POSITION, USER_ID
from components.contracts.config import Config
from components.contracts.decision import GateResult
from components.contracts.errors import DataError, ServiceError
from components.contracts.online import PROFILE_VARIABLE
from components.contracts.paths import Home
from components.contracts.spec import CONTEXT_SOURCE, Dtype, FeatureSpec, raw
from components.packaging import process
from components.packaging.guard import write_guard
from components.scoring.raw import Column, Ragged, columns_from_table
from components.scoring.score import Scorer

GATE = "bento"
REQUEST = "request"
"""Column of expected.parquet that numbers the requests; rows of one number are the items of one request."""

RELATIVE = 1e-5
ABSOLUTE = 1e-7
"""Offline and online are the same float32 graph on the same machine; what is above this is a different input."""

STRANGER = "esmm-smoke-test-unknown"


class SmokeTestConfig(Config):
    dataset: str
    code: str = ""


@dataclass(frozen=True)
class Request:
    """One request and the answer the model gives offline. `unknown_*` None: not checked."""

    user_id: str
    item_ids: tuple[str, ...]
    context: Mapping[str, Any]
    pctr: NDArray[np.float64]
    pcvr: NDArray[np.float64]
    group_id: str | None = None
    item_context: Mapping[str, list[Any]] = field(default_factory=dict)
    unknown_user: bool | None = None
    unknown_group: bool | None = None
    unknown_items: tuple[str, ...] | None = None

    @property
    def body(self) -> dict[str, Any]:
        return {
            "user_id": self.user_id,
            "group_id": self.group_id,
            "item_ids": list(self.item_ids),
            "context": dict(self.context),
            "item_context": dict(self.item_context),
        }


@dataclass(frozen=True)
class Answer:
    """Status and parsed body of the service's answer."""

    status: int
    body: Mapping[str, Any]


def run(config: SmokeTestConfig, bento: str, winner: Path, expected: Path) -> dict[str, Any]:
    """Asks the Bento (a tag) the requests of the `expected` artifact; facts: `passed`, `gate`, `seconds`.

    A Bento that is not there, does not start or does not answer closes the gate; it does not raise.

    Raises:
        DataError: if `winner` or `expected` is not a readable artifact.
    """
    home = Home.from_environment()
    requests = expected_requests(Scorer(winner), expected / EXPECTED)
    started = time.monotonic()
    try:
        gate = compare(requests, ask(home, bento, requests, _store(expected)), bento)
    except ServiceError as error:
        sentence, *log = str(error).splitlines()
        gate = _closed(f"the Bento cannot be asked: {sentence}", {"log": log})
    seconds = round(time.monotonic() - started, 3)
    return {"passed": gate.passed, "gate": gate.model_dump(mode="json"), "seconds": seconds}


def expected_requests(scorer: Scorer, path: Path) -> list[Request]:
    """The requests of expected.parquet, scored offline, and one of ids that nobody knows; where there are groups, also
    the first without its group.

    Raises:
        DataError: if the file is missing or lacks a column.
    """
    if not path.is_file():
        raise DataError(f"{path} does not exist: run the materialize stage again")
    spec = scorer.info.spec
    table = pq.read_table(path)
    names = [name for name in spec.raw if name != POSITION]
    absent = [name for name in (REQUEST, *spec.keys, *names) if name not in table.column_names]
    if absent:
        raise DataError(f"{path} has no column {', '.join(absent)}: run the materialize stage again")
    columns = columns_from_table(table, names)
    numbers = table.column(REQUEST).to_numpy()
    requests = []
    for number in dict.fromkeys(numbers.tolist()):
        rows = np.flatnonzero(numbers == number)
        scores = scorer.score({name: column[rows] for name, column in columns.items()})
        requests.append(
            Request(
                **_sent(spec, table.take(rows).to_pylist()),
                pctr=scores.pctr,
                pcvr=scores.pcvr,
            )
        )
    if not requests:
        return []
    return [*requests, *_without_group(scorer, requests[0], columns, numbers), _strangers(scorer)]


def _sent(spec: FeatureSpec, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What a request of these rows says: ids and context."""
    # Position is sent too where it is known: the service has to ignore it.
    of_request = raw(spec.from_source(CONTEXT_SOURCE))
    context = {name: _json(rows[0].get(name), dtype) for name, dtype in of_request.items()}
    return {
        "user_id": rows[0][USER_ID],
        "group_id": rows[0].get(GROUP_ID),
        "item_ids": tuple(row[ITEM_ID] for row in rows),
        "context": {name: value for name, value in context.items() if value is not None},
        "item_context": {
            name: [_json(row[name], dtype) for row in rows] for name, dtype in raw(spec.item_context).items()
        },
    }


def _json(value: Any, dtype: Dtype) -> Any:
    """The value as JSON carries it; None if it is missing."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    kinds: dict[Dtype, Any] = {"int": int, "float": float, "bool": bool, "string": str, "strings": list, "floats": list}
    return kinds[dtype](value)


def _without_group(
    scorer: Scorer, first: Request, columns: Mapping[str, Column], numbers: NDArray[np.int64]
) -> list[Request]:
    spec = scorer.info.spec
    if GROUP_ID not in spec.keys:
        return []
    rows = np.flatnonzero(numbers == numbers[0])
    kept = {name: column[rows] for name, column in columns.items()}
    for view in spec.views:
        if view.entity == GROUP_ID:
            kept |= _missing(raw(spec.from_source(view.name)), len(rows))
    scores = scorer.score(kept)
    return [replace(first, group_id=None, unknown_group=True, pctr=scores.pctr, pcvr=scores.pcvr)]


def _missing(columns: Mapping[str, Dtype], rows: int) -> dict[str, Column]:
    def missing(dtype: Dtype) -> Column:
        if dtype in ("strings", "floats"):
            return Ragged(np.array([], object if dtype == "strings" else np.float64), np.zeros(rows + 1, np.int64))
        return np.full(rows, np.nan) if dtype in ("int", "float") else np.full(rows, None, object)

    return {name: missing(dtype) for name, dtype in columns.items()}


def _strangers(scorer: Scorer) -> Request:
    """A request of ids that are in no vocabulary and no store, without context: every stored feature is missing."""
    spec = scorer.info.spec
    items = (f"{STRANGER}-1", f"{STRANGER}-2")
    columns = _missing(spec.raw, len(items))
    columns |= {USER_ID: np.full(2, STRANGER, object), ITEM_ID: np.array(items, object)}
    scores = scorer.score(columns)
    entities = {view.entity for view in spec.views} | {f.name for f in spec.from_source("id")}
    return Request(
        user_id=STRANGER,
        item_ids=items,
        context={},
        pctr=scores.pctr,
        pcvr=scores.pcvr,
        group_id=STRANGER if GROUP_ID in entities else None,
        unknown_user=USER_ID in entities,
        unknown_group=True if GROUP_ID in entities else None,
        unknown_items=items if ITEM_ID in entities else (),
    )


def _store(expected: Path) -> Home | None:
    """The home whose feature store the expectation is for, None where it is the live one."""
    home = expected / EXPECTED_HOME
    return Home(home) if home.is_dir() else None


def ask(home: Home, bento: str, requests: Sequence[Request], store: Home | None = None) -> list[Answer]:
    """Starts the Bento under the import guard and posts the requests, one by one.

    Args:
        store: a home whose embedded feature store answers, instead of the environment's.

    Raises:
        ServiceError: it is not there, does not start, does not answer or fails on a request, or was not under the
            guard.
    """
    path = process.bento_path(home, bento)
    with tempfile.TemporaryDirectory(prefix="esmm-smoke-") as temporary:
        folder = Path(temporary)
        evidence = write_guard(folder, path)
        search = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
        log = folder / "service.log"
        environment = {"PYTHONPATH": search} | ({PROFILE_VARIABLE: "embedded"} if store is not None else {})
        with process.serving(store or home, path, log=log, environment=environment) as service:
            try:
                with httpx.Client(base_url=service.url, timeout=30.0, trust_env=False) as client:
                    answers = [_answer(client.post("/rank", json=request.body)) for request in requests]
            except httpx.HTTPError as error:
                raise ServiceError(f"the service did not answer ({error!r}){process.tail(log)}") from None
            failed = next((answer for answer in answers if answer.status >= 500), None)
            if failed is not None:
                # But for a store that it cannot read, the answer says no more than to look into the log.
                said = f": {failed.body.get('error')}" if failed.status == 503 else ""
                raise ServiceError(f"the service failed on a request{said}{process.tail(log)}")
        if not evidence.is_file():
            raise ServiceError("the service did not run under the import guard, so nothing is known of what it needs")
    return answers


def _answer(response: httpx.Response) -> Answer:
    try:
        body = response.json()
    except ValueError:
        body = {"error": response.text[:200]}
    return Answer(response.status_code, body if isinstance(body, dict) else {"error": str(body)[:200]})


def compare(expected: Sequence[Request], answers: Sequence[Answer], bento: str) -> GateResult:
    """Passes if every answer holds exactly the items asked for, scored and ordered as offline.

    Scores may differ by `RELATIVE` of the expected one or by `ABSOLUTE`; items closer than that may swap places.
    Nothing expected, or fewer answers than requests, closes the gate.
    """
    if not expected or len(answers) != len(expected):
        return _closed(f"no evidence: {len(answers)} answers to {len(expected)} requests", {})
    largest = {"pctr": 0.0, "pcvr": 0.0, "pctcvr": 0.0}
    for number, (request, answer) in enumerate(zip(expected, answers, strict=True)):
        wrong = _wrong(request, answer, bento, largest)
        if wrong:
            return _closed(f"request {number} (user {request.user_id!r}): {wrong}", {"largest_difference": largest})
    rows = sum(len(request.item_ids) for request in expected)
    evidence = {"requests": len(expected), "rows": rows, "largest_difference": largest}
    return GateResult(
        gate=GATE, passed=True, reason=f"{rows} items in {len(expected)} requests scored as offline", evidence=evidence
    )


def _closed(reason: str, evidence: dict[str, Any]) -> GateResult:
    return GateResult(gate=GATE, passed=False, reason=reason, evidence=evidence)


def _wrong(request: Request, answer: Answer, bento: str, largest: dict[str, float]) -> str:
    """What is wrong with an answer, "" if nothing; keeps the largest difference seen by score."""
    if answer.status != 200:
        return f"answered {answer.status}: {answer.body.get('error', answer.body)}"
    try:
        items = [
            (str(i["item_id"]), float(i["pctr"]), float(i["pcvr"]), float(i["pctcvr"])) for i in answer.body["items"]
        ]
        version, unknown_user, unknown_items = (
            answer.body[key] for key in ("model_version", "unknown_user", "unknown_items")
        )
    except (KeyError, TypeError, ValueError) as error:
        return f"the answer is not of the agreed form ({error!r})"
    if version != bento:
        return f"{version} answered, not {bento}"
    if sorted(item[0] for item in items) != sorted(request.item_ids):
        return f"asked for {len(request.item_ids)} items, {len(items)} others came back"
    both = request.pctr * request.pcvr
    offline = dict(zip(request.item_ids, zip(request.pctr, request.pcvr, both, strict=True), strict=True))
    for item, *scores in items:
        if scores[2] != scores[0] * scores[1]:
            return f"item {item!r}: pctcvr {scores[2]!r} is not pctr * pcvr"
        for name, online, reference in zip(largest, scores, map(float, offline[item]), strict=True):
            difference = abs(online - reference)
            largest[name] = max(largest[name], difference)
            # Written so that a NaN is a difference.
            if not difference <= ABSOLUTE + RELATIVE * reference:
                return f"item {item!r}: {name} is {online:.8g} online and {reference:.8g} offline"
    for before, after in pairwise(items):
        if (-before[3], before[0]) > (-after[3], after[0]):
            return f"item {after[0]!r} is ranked below {before[0]!r} and scored above it"
    if request.unknown_user is not None and unknown_user is not request.unknown_user:
        return f"unknown_user is {unknown_user!r} and should be {request.unknown_user}"
    if request.unknown_group is not None and answer.body.get("unknown_group") is not request.unknown_group:
        said = answer.body.get("unknown_group")
        return f"unknown_group is {said!r} and should be {request.unknown_group}"
    if request.unknown_items is not None and sorted(unknown_items) != sorted(request.unknown_items):
        return f"unknown_items is {unknown_items!r} and should be {list(request.unknown_items)}"
    return ""
