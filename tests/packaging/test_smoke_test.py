"""The Bento gate: passes the good one, refuses each bad one, and refuses without evidence."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tiny_model import make_model, reseal, rows

from components.contracts.artifacts import EXPECTED
from components.contracts.decision import GateResult
from components.contracts.errors import DataError
from components.contracts.files import write_manifest
from components.contracts.paths import HOME_VARIABLE, Home
from components.packaging import smoke_test
from components.packaging.guard import write_guard
from components.packaging.process import bento_path
from components.packaging.smoke_test import Answer, Request, SmokeTestConfig, compare
from components.scoring.raw import columns_from_table
from components.scoring.score import Scorer

CONFIG = SmokeTestConfig(dataset="shop")
TAG = "esmm-shop:1"


def good():
    """Two requests and the answers they should get."""
    pctr, pcvr = np.array([0.1, 0.4, 0.2]), np.array([0.01, 0.02, 0.03])
    requests = [
        Request("u1", ("a", "b", "c"), {}, pctr, pcvr),
        Request("x", ("y",), {}, pctr[:1], pcvr[:1], unknown_user=True, unknown_items=("y",)),
    ]
    answers = [
        Answer(
            200,
            {
                "model_version": TAG,
                "unknown_user": request.unknown_user is True,
                "unknown_items": list(request.unknown_items or ()),
                "items": sorted(
                    (
                        {"item_id": i, "pctr": p, "pcvr": v, "pctcvr": p * v}
                        for i, p, v in zip(request.item_ids, request.pctr.tolist(), request.pcvr.tolist(), strict=True)
                    ),
                    key=lambda item: -item["pctcvr"],
                ),
            },
        )
        for request in requests
    ]
    return requests, answers


def changed(change, number=0):
    requests, answers = good()
    body = json.loads(json.dumps(answers[number].body))
    change(body)
    answers[number] = dataclasses.replace(answers[number], body=body)
    return compare(requests, answers, TAG)


def scores(body, **values):
    item = body["items"][0]
    item.update(values)
    item["pctcvr"] = item["pctr"] * item["pcvr"]


def test_equal_passes():
    gate = compare(*good(), TAG)
    assert gate.passed
    assert gate.evidence["rows"] == 4


def test_rounding_passes():
    assert changed(lambda b: scores(b, pctr=b["items"][0]["pctr"] * (1 + 1e-6))).passed


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda b: scores(b, pctr=b["items"][0]["pctr"] * 1.001), "pctr is"),
        (lambda b: scores(b, pcvr=float("nan")), "pctcvr"),
        (lambda b: b["items"][0].update(pctcvr=b["items"][0]["pctcvr"] * (1 + 1e-9)), "not pctr * pcvr"),
        (lambda b: b["items"].reverse(), "ranked below"),
        (lambda b: b["items"].pop(), "items"),
        (lambda b: b["items"][0].update(item_id="z"), "items"),
        (lambda b: b["items"].append(b["items"][0]), "items"),
        (lambda b: b.pop("items"), "agreed form"),
        (lambda b: b.update(model_version="esmm-shop:2"), "esmm-shop:2 answered"),
    ],
)
def test_a_different_answer_is_refused(change, said):
    gate = changed(change)
    assert not gate.passed
    assert said in gate.reason


def test_unknown_ids_must_be_said():
    assert "unknown_user" in changed(lambda b: b.update(unknown_user=False), number=1).reason
    assert "unknown_items" in changed(lambda b: b.update(unknown_items=[]), number=1).reason


@pytest.mark.parametrize(("said", "passes"), [(True, True), (False, False), (None, False)])
def test_an_unknown_group_must_be_said(said, passes):
    requests, answers = good()
    requests[1] = dataclasses.replace(requests[1], unknown_group=True)
    answers[1] = dataclasses.replace(answers[1], body={**answers[1].body, "unknown_group": said})
    gate = compare(requests, answers, TAG)
    assert gate.passed is passes
    assert passes or "unknown_group" in gate.reason


def test_an_error_answer_is_refused():
    requests, answers = good()
    gate = compare(requests, [Answer(500, {"error": "boom"}), answers[1]], TAG)
    assert not gate.passed
    assert "500: boom" in gate.reason


def test_no_evidence_is_closed():
    requests, answers = good()
    assert not compare([], [], TAG).passed
    assert not compare(requests, answers[:1], TAG).passed


def test_requests_of_the_expected_artifact(model, expected):
    requests = smoke_test.expected_requests(Scorer(model), expected / EXPECTED)
    assert [len(r.item_ids) for r in requests] == [5, 5, 2]
    assert set(requests[0].context) == {"position", "hour", "device", "speed", "member"}
    assert requests[-1].unknown_user
    assert requests[-1].context == {}


def test_requests_with_bags_and_context_of_items(tmp_path):
    """Each item's own bag, a missing one as null; offline scores are of the same rows."""
    scorer = Scorer(make_model(tmp_path / "model", bags=True))
    tags, weights = [["t1"], [], ["t2", "t3"], None], [[0.5], [], [1.0, 2.0], None]
    table = {name: pa.array(np.asarray(column[:4]).tolist()) for name, column in rows(seed=3, count=4).items()}
    for name in ("user_id", "hour", "device", "speed", "member", "position"):
        table[name] = pa.array([table[name][0].as_py()] * 4)
    table |= {"request": pa.array([0] * 4), "shown_with": pa.array([["t5", "t1"]] * 4)}
    table |= {"tags": pa.array(tags), "tags_weights": pa.array(weights)}
    pq.write_table(pa.table(table), tmp_path / "bags.parquet")
    request, strangers = smoke_test.expected_requests(scorer, tmp_path / "bags.parquet")
    body = json.loads(json.dumps(request.body))
    assert body["context"]["shown_with"] == ["t5", "t1"]
    assert body["item_context"] == {"tags": tags, "tags_weights": weights}
    assert (body["group_id"], request.unknown_group) == (None, None)
    expected = scorer.score(columns_from_table(pa.table(table), scorer.info.spec.raw))
    np.testing.assert_array_equal(request.pctr, expected.pctr)
    assert len(set(expected.pctr.tolist())) == 4
    assert (strangers.item_context, strangers.unknown_group) == ({}, None)
    less = {name: column for name, column in table.items() if name != "tags_weights"}
    pq.write_table(pa.table(less), tmp_path / "less.parquet")
    with pytest.raises(DataError, match="no column tags_weights"):
        smoke_test.expected_requests(scorer, tmp_path / "less.parquet")


def test_an_empty_or_other_file_is_no_evidence(model, expected, tmp_path, home):
    pq.write_table(pq.read_table(expected / EXPECTED).slice(0, 0), tmp_path / "empty.parquet")
    assert smoke_test.expected_requests(Scorer(model), tmp_path / "empty.parquet") == []
    pq.write_table(pa.table({"user_id": ["a"]}), tmp_path / "other.parquet")
    with pytest.raises(DataError, match="no column request"):
        smoke_test.expected_requests(Scorer(model), tmp_path / "other.parquet")


# From here on with a real Bento.


def test_a_good_bento_passes(built, model, expected, monkeypatch, no_process_left):
    home, tag = built
    monkeypatch.setenv(HOME_VARIABLE, str(home.root))
    facts = smoke_test.run(CONFIG, tag, model, expected)
    assert facts["passed"], facts
    gate = GateResult.parse(facts["gate"])
    assert (gate.gate, gate.evidence["requests"], gate.evidence["rows"]) == ("bento", 3, 12)


@pytest.fixture
def copy(built, tmp_path, monkeypatch):
    """(home, tag, src folder) of a Bento that a test may damage."""
    home, tag = built
    other = Home(tmp_path / "copy")
    shutil.copytree(home.bentoml, other.bentoml)
    monkeypatch.setenv(HOME_VARIABLE, str(other.root))
    return other, tag, bento_path(other, tag) / "src"


def test_another_model_inside_is_refused(copy, model, expected, tmp_path, no_process_left):
    _, tag, source = copy
    other = make_model(tmp_path / "other", seed=1)
    shutil.copy(other / "model.onnx", source / "model/model.onnx")
    reseal(source / "model")
    facts = smoke_test.run(CONFIG, tag, model, expected)
    assert not facts["passed"]
    assert "online and" in facts["gate"]["reason"]


def test_a_bento_that_does_not_start_is_refused(copy, model, expected, no_process_left):
    _, tag, source = copy
    (source / "model/model.onnx").write_bytes(b"not sealed")
    facts = smoke_test.run(CONFIG, tag, model, expected)
    assert not facts["passed"]
    assert "CorruptArtifact" in facts["gate"]["reason"]
    assert facts["gate"]["evidence"]["log"]


def test_no_other_copy_of_the_project_stands_in(copy, model, expected, monkeypatch, no_process_left):
    """The project is importable from here (PYTHONPATH), as from an editable install; the Bento must not use it."""
    _, tag, source = copy
    shutil.rmtree(source / "components/scoring")
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).resolve().parents[2]))
    facts = smoke_test.run(CONFIG, tag, model, expected)
    assert not facts["passed"]
    assert "components.scoring is not in the Bento" in facts["gate"]["reason"]


def test_a_bento_that_needs_a_library_of_the_pipeline_is_refused(copy, model, expected, no_process_left):
    _, tag, source = copy
    with (source / "serving/settings.py").open("a") as file:
        file.write("\nimport torch\n")
    facts = smoke_test.run(CONFIG, tag, model, expected)
    assert not facts["passed"]
    assert "torch" in facts["gate"]["reason"]


def test_the_guard_hides_libraries_and_other_copies_of_the_project(built, tmp_path):
    home, tag = built
    write_guard(tmp_path, bento_path(home, tag))
    code = (
        "import importlib, importlib.util, sys\n"
        "for name in ('torch', 'torch.nn', 'kfp', 'mlflow', 'duckdb', 'pipelines', 'components.packaging'):\n"
        "    try: importlib.import_module(name)\n"
        "    except ModuleNotFoundError: print('hidden', name)\n"
        "print(importlib.util.find_spec('torch'))\n"
        "import components.scoring.score as score; print(score.__file__)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{root}"},
        cwd=root,
        capture_output=True,
        text=True,
    )
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines[:-2]] == [
        *("torch", "torch.nn", "kfp", "mlflow", "duckdb", "pipelines", "components.packaging")
    ], done.stderr
    assert lines[-2] == "None"
    assert lines[-1] == str(bento_path(home, tag) / "src/components/scoring/score.py")


def test_a_bento_that_is_not_there_is_refused(home, model, expected):
    facts = smoke_test.run(CONFIG, "esmm-shop:gone", model, expected)
    assert not facts["passed"]
    assert "is not in" in facts["gate"]["reason"]


def test_without_the_guard_nothing_is_known(built, model, expected, monkeypatch, tmp_path, no_process_left):
    home, tag = built
    monkeypatch.setenv(HOME_VARIABLE, str(home.root))
    monkeypatch.setattr(smoke_test, "write_guard", lambda folder, bento: folder / "never")
    facts = smoke_test.run(CONFIG, tag, model, expected)
    assert not facts["passed"]
    assert "import guard" in facts["gate"]["reason"]


def test_the_artifact_must_be_whole(home, model, tmp_path):
    (tmp_path / "expected").mkdir()
    write_manifest(tmp_path / "expected")
    with pytest.raises(DataError, match="does not exist"):
        smoke_test.run(CONFIG, "esmm-shop:1", model, tmp_path / "expected")
