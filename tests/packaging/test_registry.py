"""Promotion is one step, decided under a lock; every way it can be refused; going back."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tiny_model import AS_OF, make_model

from components.contracts.errors import NoEvidence, RegistryError, ServiceError
from components.packaging import promote as promote_stage
from components.packaging import registry

ROOT = Path(__file__).resolve().parents[2]
LATER = "2026-01-11T00:00:00Z"


@pytest.fixture
def put(home, tmp_path):
    """Promotes a model of its own a run, with a Bento folder to go with it."""

    def make(run, expected_champion, as_of=AS_OF, dataset="shop"):
        folder = home.bentoml / "bentos" / f"esmm-{dataset}" / run
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "bento.yaml").touch()
        model = tmp_path / run
        if not model.exists():
            make_model(model, seed=len(list(tmp_path.iterdir())), as_of=as_of, dataset=dataset)
        return registry.promote(
            home,
            dataset,
            model,
            bento=f"esmm-{dataset}:{run}",
            metrics={"ctcvr_auc": 0.75},
            expected_champion=expected_champion,
            as_of=as_of,
            run=run,
        )

    return make


def test_an_empty_home_has_nothing_and_makes_no_file(home):
    assert registry.champion(home, "shop") is None
    assert registry.previous(home, "shop") is None
    assert registry.versions(home, "shop") == []
    assert registry.datasets(home) == []
    assert list(home.root.iterdir()) == []


def test_first_promotion(home, put, tmp_path):
    done = put("run-1", None)
    assert (done.version, done.aliases, done.bento, done.run) == (1, ("champion",), "esmm-shop:run-1", "run-1")
    assert (done.as_of, done.previous, done.metrics) == (AS_OF, None, {"ctcvr_auc": 0.75})
    assert done.created.endswith("Z")
    kept = Path(done.source)
    assert kept == home.models / "shop" / "run-1"
    assert (kept / "model.onnx").read_bytes() == (tmp_path / "run-1/model.onnx").read_bytes()
    assert registry.champion(home, "shop") == done
    assert registry.datasets(home) == ["shop"]


def test_second_promotion_remembers_the_first(home, put):
    put("run-1", None)
    second = put("run-2", 1, LATER)
    assert second.previous == 1
    assert registry.previous(home, "shop").version == 1
    assert [(v.version, v.aliases) for v in registry.versions(home, "shop")] == [(2, ("champion",)), (1, ())]


def test_datasets_do_not_meet(home, put):
    put("run-1", None)
    put("run-2", None, dataset="other")
    assert registry.datasets(home) == ["other", "shop"]
    assert registry.champion(home, "other").version == 1
    assert [v.run for v in registry.versions(home, "shop")] == ["run-1"]


def test_a_lost_race_is_refused_and_leaves_nothing(home, put):
    put("run-1", None)
    with pytest.raises(RegistryError, match="is version 1, but this run was compared with none"):
        put("run-2", None, LATER)
    put("run-3", 1, LATER)
    with pytest.raises(RegistryError, match="is version 2, but this run was compared with version 1"):
        put("run-4", 1, LATER)
    assert [v.run for v in registry.versions(home, "shop")] == ["run-3", "run-1"]
    assert sorted(p.name for p in (home.models / "shop").iterdir()) == ["run-1", "run-3"]


def test_older_data_is_refused_and_equal_is_not(home, put):
    put("run-1", None, LATER)
    with pytest.raises(RegistryError, match="an older run is not promoted"):
        put("run-2", 1, AS_OF)
    assert registry.champion(home, "shop").version == 1
    assert put("run-3", 1, LATER).version == 2


def test_rollback_follows_previous_until_there_is_none(home, put):
    for number in (1, 2, 3):
        put(f"run-{number}", number - 1 or None)
    assert registry.rollback(home, "shop").version == 2
    back = registry.rollback(home, "shop")
    assert back.version == 1
    assert back.aliases == ("champion",)
    with pytest.raises(RegistryError, match="no predecessor"):
        registry.rollback(home, "shop")
    assert registry.champion(home, "shop").version == 1


def test_rollback_without_champion(home):
    with pytest.raises(RegistryError, match="nothing to roll back"):
        registry.rollback(home, "shop")


def test_promote_by_hand_after_a_rollback(home, put):
    put("run-1", None)
    put("run-2", 1)
    registry.rollback(home, "shop")
    forward = registry.promote_version(home, "shop", 2)
    assert (forward.version, forward.previous) == (2, 1)
    with pytest.raises(RegistryError, match="champion already"):
        registry.promote_version(home, "shop", 2)
    with pytest.raises(RegistryError, match="no version 7"):
        registry.promote_version(home, "shop", 7)


def test_a_version_whose_bento_is_gone_cannot_serve(home, put):
    put("run-1", None)
    put("run-2", 1)
    (home.bentoml / "bentos/esmm-shop/run-1/bento.yaml").unlink()
    for attempt in (lambda: registry.rollback(home, "shop"), lambda: registry.promote_version(home, "shop", 1)):
        with pytest.raises(ServiceError, match="is not in"):
            attempt()
    assert registry.champion(home, "shop").version == 2


def test_killed_before_the_alias_moves_the_old_one_serves_and_a_retry_continues(home, put, monkeypatch):
    put("run-1", None)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_make_champion", lambda *args, **kwargs: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            put("run-2", 1)
    assert registry.champion(home, "shop").version == 1
    done = put("run-2", 1)
    assert (done.version, done.previous) == (2, 1)
    assert len(registry.versions(home, "shop")) == 2


SCRIPT = """
import sys
from pathlib import Path
from components.contracts.errors import RegistryError
from components.contracts.paths import Home
from components.packaging import registry
home, model, run = Home(Path(sys.argv[1])), Path(sys.argv[2]), sys.argv[3]
print("started", flush=True)
sys.stdin.readline()
try:
    done = registry.promote(home, "shop", model, bento=f"esmm-shop:{run}", metrics={}, expected_champion=None,
                            as_of="2026-01-10T00:00:00Z", run=run)
    print("won", done.version)
except RegistryError as error:
    print("lost", error)
"""


def test_two_processes_that_both_create_the_registry_and_promote(home, tmp_path):
    children = []
    for run in ("run-a", "run-b"):
        model = make_model(tmp_path / run, seed=len(run))
        children.append(
            subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(home.root), str(model), run],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for child in children:
        assert child.stdout.readline() == "started\n"
    outputs = [child.communicate("go\n", timeout=120) for child in children]
    said = sorted(out for out, _ in outputs)
    assert [line.split()[0] for line in said] == ["lost", "won"], outputs
    assert "compared with none" in said[0]
    assert len(registry.versions(home, "shop")) == 1
    assert not any("Traceback" in err for _, err in outputs)


def test_killed_at_any_moment_there_is_a_whole_champion(home, put, tmp_path):
    """SIGKILL after a growing delay: the champion is the old or the new one, whole, and the lock is free."""
    put("run-1", None)
    for number, delay in enumerate((0.0, 0.02, 0.05, 0.1), start=2):
        champion = registry.champion(home, "shop")
        model = make_model(tmp_path / f"kill-{number}", seed=number)
        script = SCRIPT.replace("expected_champion=None", f"expected_champion={champion.version}")
        child = subprocess.Popen(
            [sys.executable, "-c", script, str(home.root), str(model), f"kill-{number}"],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        child.stdout.readline()
        child.stdin.write("go\n")
        child.stdin.flush()
        # Loading MLflow takes most of the time: wait for its first sign of life in the home.
        deadline = time.monotonic() + 30
        while not (home.models / "shop" / f"kill-{number}").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(delay)
        child.kill()
        child.communicate()
        now = registry.champion(home, "shop")
        assert now.version >= champion.version
        assert registry.read_model(Path(now.source)).candidate == "esmm"


def test_the_stage_reads_metrics_from_the_evaluation(home, evaluation, tmp_path, monkeypatch):
    monkeypatch.setenv("ESMM_RUN_DIR", str(tmp_path / "20260110T000000-cccc"))
    config = promote_stage.PromoteConfig(dataset="shop", as_of=AS_OF)
    facts = promote_stage.run(config, "esmm-shop:1", make_model(tmp_path / "model"), evaluation())
    assert facts["version"] == 1
    champion = registry.champion(home, "shop")
    assert champion.run == "20260110T000000-cccc"
    assert champion.metrics["ctcvr_auc"] == 0.8
    assert "cvr_auc_clicked" not in champion.metrics
    json.dumps(champion.metrics, allow_nan=False)


def test_the_stage_promotes_nothing_that_was_refused(home, evaluation, tmp_path):
    config = promote_stage.PromoteConfig(dataset="shop", as_of=AS_OF)
    with pytest.raises(NoEvidence, match="does not decide for a promotion"):
        promote_stage.run(config, "esmm-shop:1", make_model(tmp_path / "model"), evaluation(promote=False))
    assert registry.champion(home, "shop") is None
