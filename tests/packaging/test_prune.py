"""What is in use stays: newest runs, champion and predecessor, a live run, and what they took from older runs."""

import json
import multiprocessing
import os
from datetime import UTC, datetime

import pytest
from tiny_model import AS_OF, make_model

from components.contracts.errors import Busy, UsageError
from components.contracts.locks import exclusive
from components.contracts.paths import Home
from components.packaging import prune, registry

RUNS = [f"2026010{n}T000000-aaaa" for n in range(1, 7)]


def folder_of(run):
    return f"esmm-training-{run[:8].lower()}"


@pytest.fixture
def used(home, tmp_path):
    """Six runs; the first promoted version 1, the second version 2 (champion). Run 6 reused an artifact of run 4."""
    for run in RUNS:
        pipeline = home.pipeline_root / folder_of(run) / "train"
        pipeline.mkdir(parents=True)
        (pipeline / "model").write_text("x" * 1000)
        directory = home.runs / run
        directory.mkdir(parents=True)
        (directory / "record.json").write_text("{}")
        reused = home.pipeline_root / folder_of(RUNS[3]) / "train/model" if run == RUNS[5] else ""
        (directory / "kfp.log").write_text(f'"uri": "{pipeline}/model"\n "uri": "{reused}"\n')
        cached = {"model": {"__kfp_artifact__": True, "uri": str(pipeline / "model")}}
        home.cache.mkdir(exist_ok=True)
        (home.cache / f"{run}.json").write_text(json.dumps(cached))
        bento = home.bentoml / "bentos/esmm-shop" / f"{run.lower()}-12345678"
        bento.mkdir(parents=True)
        (bento / "bento.yaml").touch()
        (home.models / "shop" / run).mkdir(parents=True, exist_ok=True)
    for number, run in enumerate(RUNS[:2]):
        (home.models / "shop" / run).rmdir()
        registry.promote(
            home,
            "shop",
            make_model(tmp_path / run, seed=number),
            bento=f"esmm-shop:{run.lower()}-12345678",
            metrics={},
            expected_champion=number or None,
            as_of=AS_OF,
            run=run,
        )
    return home


def state(home):
    return {
        "runs": {p.name for p in home.runs.iterdir()},
        "pipeline": {p.name for p in home.pipeline_root.iterdir()},
        "cache": {p.stem for p in home.cache.iterdir()},
        "bentos": {p.name for p in (home.bentoml / "bentos/esmm-shop").iterdir()},
        "models": {p.name for p in (home.models / "shop").iterdir()},
    }


def test_a_plan_changes_nothing_and_lists_sizes(used):
    before = state(used)
    plan = prune.plan_prune(used, keep=1)
    assert state(used) == before
    assert plan.bytes > 1000
    assert any(line.startswith("run ") for line in plan.lines())
    assert plan.kept_runs == (RUNS[0], RUNS[1], RUNS[5])


def test_what_is_in_use_stays_and_the_rest_goes(used):
    prune.apply(used, prune.plan_prune(used, keep=1))
    after = state(used)
    kept = {RUNS[0], RUNS[1], RUNS[5]}
    assert after["runs"] == kept
    assert after["models"] == kept
    assert after["bentos"] == {f"{run.lower()}-12345678" for run in kept}
    # Run 4's artifacts stay, since run 6 took one from there; its cache entry is still right.
    assert after["pipeline"] == {folder_of(run) for run in (*kept, RUNS[3])}
    assert after["cache"] == kept | {RUNS[3]}
    assert registry.champion(used, "shop").version == 2
    assert prune.plan_prune(used, keep=1).entries == ()


def test_after_a_rollback_the_former_champion_goes_only_when_it_is_old(used):
    registry.rollback(used, "shop")
    plan = prune.plan_prune(used, keep=5)
    assert plan.entries == ()
    assert RUNS[1] not in prune.plan_prune(used, keep=4).kept_runs


def hold(path, ready, done):
    with exclusive(path, "a run"):
        ready.set()
        done.wait(60)


@pytest.fixture
def live(used):
    """A process that holds the home's lock, and its unfinished run with a Bento that is not promoted yet."""
    run = "20260107T000000-bbbb"
    (used.runs / run).mkdir()
    (used.bentoml / "bentos/esmm-shop" / f"{run.lower()}-12345678").mkdir()
    (used.bentoml / ".building-x").mkdir()
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    process = context.Process(target=hold, args=(used.lock, ready, done))
    process.start()
    assert ready.wait(60)
    yield used, run
    done.set()
    process.join(30)


def test_a_live_run_keeps_all_it_may_use(live):
    home, run = live
    before = state(home)
    plan = prune.plan_prune(home, keep=1)
    assert plan.live
    assert any("a run is going on" in line for line in plan.lines())
    prune.apply(home, plan)
    after = state(home)
    assert run in after["runs"]
    assert f"{run.lower()}-12345678" in after["bentos"]
    assert after["pipeline"] == before["pipeline"]
    assert after["cache"] == before["cache"]
    assert (home.bentoml / ".building-x").is_dir()
    assert RUNS[2] not in after["runs"]


def test_a_run_that_starts_between_plan_and_apply_is_left_alone(used):
    plan = prune.plan_prune(used, keep=1)
    before = state(used)
    with exclusive(used.lock, "a run"), pytest.raises(Busy, match="nothing was deleted"):
        prune.apply(used, plan)
    assert state(used) == before


def test_an_abandoned_build_goes(used):
    (used.bentoml / ".building-x").mkdir()
    prune.apply(used, prune.plan_prune(used, keep=6))
    assert not (used.bentoml / ".building-x").exists()


def saved(home, key, day):
    """A checkpoint written at noon of a day in January 2026."""
    folder = home.checkpoints / key
    (folder / "step-0000000005").mkdir(parents=True)
    (folder / "step-0000000005/state.safetensors").write_text("x" * 500)
    (folder / "lock").touch()
    noon = datetime(2026, 1, day, 12, tzinfo=UTC).timestamp()
    for path in (folder / "step-0000000005", folder / "lock", folder):
        os.utime(path, (noon, noon))
    return folder


def test_checkpoints_go_that_are_older_than_the_newest_runs(used):
    """Runs began on 1 to 6 January: of the newest two the older one began on the fifth."""
    old, held, new = (saved(used, *of) for of in (("a", 4), ("b", 4), ("c", 5)))
    with exclusive(held / "lock", "a training"):
        plan = prune.plan_prune(used, keep=2)
        assert [(e.path, e.bytes) for e in plan.entries if e.kind == "checkpoint"] == [(old, 500)]
        prune.apply(used, plan)
    assert sorted(used.checkpoints.iterdir()) == [held, new]
    prune.apply(used, prune.plan_prune(used, keep=7))
    assert sorted(used.checkpoints.iterdir()) == [held, new]


def test_a_live_run_keeps_checkpoints(live):
    home, _ = live
    folder = saved(home, "a", 1)
    prune.apply(home, prune.plan_prune(home, keep=1))
    assert folder.is_dir()


def test_an_empty_home(tmp_path):
    plan = prune.plan_prune(Home(tmp_path), keep=3)
    assert plan.entries == ()
    assert plan.lines() == ["kept runs: none"]


def test_keep_must_be_positive(home):
    with pytest.raises(UsageError, match="at least"):
        prune.plan_prune(home, keep=0)
