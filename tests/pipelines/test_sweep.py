"""A search is checked before it starts, planned as a run is, and its best config is the recipe plus what was chosen."""

import json

import pytest
import yaml

from components.contracts.errors import UsageError
from components.contracts.paths import Home
from components.contracts.trial import Asked, Result
from components.ingestion.sources.simulator import SimulatorConfig, simulate
from components.search import study as studies
from components.search.choose import best_config
from components.search.config import SearchConfig
from components.search.space import Range
from components.search.suggest import begin, suggest
from components.training.config import TrainConfig
from pipelines import recipes
from pipelines.cluster import ClusterConfig, compile_sweep, executors
from pipelines.planning import make_plan
from pipelines.sweep_planning import make_sweep_plan
from pipelines.sweep_request import changes_for, checked

SPACE = {
    "candidate": ["esmm", "dcmt"],
    "training.lr": {"low": 3e-4, "high": 1e-2, "log": True},
    "training.hidden": [[8], [16, 8]],
    "training.candidates.dcmt.prior_weight": {"low": 0, "high": 1},
}


@pytest.fixture(scope="module")
def shop(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "shop"
    simulate(SimulatorConfig(days=8, users=50, items=30, impressions=2000), folder)
    return folder


def recipe(space=SPACE, **changes):
    return recipes.load(
        "smoke", json.dumps({"sweep": {"space": json.dumps(space), **changes.pop("sweep", {})}, **changes})
    )


@pytest.mark.parametrize(
    ("space", "says"),
    [
        ({"training.learning_rate": [1, 2]}, "there is no 'learning_rate'; there is .*embedding_lr"),
        ({"training.lr.more": [1, 2]}, "there is no 'more'"),
        ({"training.lr": {"low": 0.0, "high": 1.0}}, r"training.lr = 0.0.*a value of the space: 0.0"),
        ({"training.hidden": [[8], "wide"]}, r"training.hidden = 'wide'"),
        ({"training.batch_size": {"low": 0.5, "high": 9.5}}, "training.batch_size = 0.5"),
        ({"candidate": ["esmm", "esnn"]}, "esnn unknown"),
        ({"candidate": {"low": 0, "high": 1}}, "candidate"),
        ({"evaluation.seed": [1, 2]}, "may differ in 'candidate' and in keys of training"),
        ({"training.seed": [1, 2]}, "the best of several seeds is luck"),
        ({"training.epochs": [1, 2]}, "has to be the same for all trials"),
        ({"training.checkpoint_seconds": [1, 2]}, "does not change what a training comes to"),
    ],
)
def test_a_space_that_does_not_fit_the_recipe_is_refused(space, says):
    with pytest.raises(UsageError, match=says):
        checked(recipe(space, sweep={"trials": 2}))


def test_whole_bounds_of_a_key_that_takes_fractions_are_a_range_of_fractions():
    space = checked(recipe()).space
    assert space["training.candidates.dcmt.prior_weight"] == Range(low=0.0, high=1.0)
    assert not space["training.candidates.dcmt.prior_weight"].whole
    batch = {"training.batch_size": {"low": 32, "high": 64}}
    assert checked(recipe(batch)).space["training.batch_size"].whole


def test_rungs_that_evaluations_cannot_tell_apart_are_refused():
    with pytest.raises(UsageError, match=r"0.037, 0.111, 0.333, 1 of a training.*--set training.evaluations=27"):
        checked(recipe(sweep={"rungs": 4, "rounds": 4}))
    assert checked(recipe(sweep={"rungs": 4, "rounds": 4}, training={"evaluations": 27}))


@pytest.mark.parametrize("name", sorted(recipes.RECIPES))
def test_the_own_space_of_every_recipe_fits_it(name):
    assert checked(recipes.load(name)) == recipes.load(name).sweep


def test_the_file_replaces_the_space_and_the_options_change_the_rest(tmp_path):
    file = tmp_path / "space.json"
    file.write_text(json.dumps(SPACE))
    changes = changes_for(str(file), 7, None)
    sweep = recipes.load("hillstrom", json.dumps(changes)).sweep
    assert set(sweep.space) == set(SPACE)
    assert (sweep.trials, sweep.rounds) == (7, recipes.hillstrom().sweep.rounds)
    assert changes_for("", None, 5) == {"sweep": {"rounds": 5}}
    assert changes_for(None, None, None) == {}


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "does not exist"), ("[1]", "declares no space"), ("{", "not valid JSON"), ("{}", "declares no space")],
)
def test_a_file_that_holds_no_space_is_refused(tmp_path, content, says):
    if content is not None:
        (tmp_path / "space.json").write_text(content)
    with pytest.raises(UsageError, match=says):
        changes_for(str(tmp_path / "space.json"), None, None)


def test_options_of_a_search_without_one_are_refused():
    with pytest.raises(UsageError, match="--trials belongs to a search"):
        changes_for(None, 3, None)


def overrides(**sweep):
    return json.dumps({"training": {"seed": 5}, "sweep": {"space": json.dumps(SPACE), "trials": 6, **sweep}})


def test_the_plan_is_that_of_a_run_up_to_the_encoded_data(shop, tmp_path):
    home = Home(tmp_path / "home")
    plan = make_sweep_plan(shop, "smoke", overrides(), "", 4, home)
    run = make_plan(shop, "smoke", overrides(), "", home)
    for stage in ("ingest", "validate", "retrieve", "encode"):
        assert plan.configs[stage].to_json() == run.configs[stage].to_json()
    assert plan.facts["stages"][-3:] == ["suggest-4", "tell-4", "choose"]
    assert set(plan.outputs()._fields) == set(plan.configs)


def test_a_pipeline_of_other_rounds_is_refused(shop, tmp_path):
    with pytest.raises(UsageError, match="this pipeline has 3 rounds and the recipe asks for 4"):
        make_sweep_plan(shop, "smoke", overrides(), "", 3, Home(tmp_path / "home"))


def test_more_trainings_a_round_than_an_argument_holds_are_refused(shop, tmp_path):
    with pytest.raises(UsageError, match=r"300 trials in 4 rounds are up to 250 trainings a round.*--rounds"):
        make_sweep_plan(shop, "smoke", overrides(trials=300), "", 4, Home(tmp_path / "home"))
    assert make_sweep_plan(shop, "smoke", overrides(trials=30), "", 4, Home(tmp_path / "home"))


def test_the_compiled_search_asks_for_pods_of_their_own_in_every_round(tmp_path):
    files = [tmp_path / name for name in ("a.yaml", "b.yaml")]
    for file in files:
        compile_sweep(file, 3, ClusterConfig.parse({"image": "registry.example/esmm:1", "retries": 4}))
    assert files[0].read_bytes() == files[1].read_bytes()
    spec = next(yaml.safe_load_all(files[0].read_text()))
    images = {executor["container"]["image"] for executor in executors(spec)}
    assert images == {"registry.example/esmm:1"}
    loops = [part["dag"]["tasks"] for name, part in spec["components"].items() if name.startswith("comp-for-loop")]
    trials = [task for loop in loops for task in loop.values()]
    assert len(loops) == len(trials) == 3
    assert [task["retryPolicy"]["maxRetryCount"] for task in trials] == [4, 4, 4]
    assert all(task["cachingOptions"].get("enableCache") for task in trials)
    training = [e for name, e in spec["deploymentSpec"]["executors"].items() if name.startswith("exec-train-trial")]
    assert all(e["container"]["resources"]["accelerator"] for e in training)


def test_what_changes_the_verdict_alone_does_not_start_the_search_again(shop, tmp_path):
    home = Home(tmp_path / "home")
    more = json.dumps({**json.loads(overrides()), "evaluation": {"ctr_auc_min": 0.51}})
    plans = [make_sweep_plan(shop, "smoke", text, "", 4, home).configs["search"] for text in (overrides(), more)]
    assert plans[0] == plans[1]


def test_a_run_of_the_best_config_trains_by_what_the_trial_trained_by(shop, tmp_path):
    """For every trial as if it were the best: the same candidate, and the same config but for other candidates."""
    home = Home(tmp_path / "home")
    search = make_sweep_plan(shop, "smoke", overrides(), "", 4, home).configs["search"]
    assert isinstance(search, SearchConfig)
    begin(tmp_path / "study", tmp_path / "states")
    for one in suggest(search, 0, tmp_path / "study"):
        best = best_config(search, json.loads(overrides()), search.values(json.loads(one.params)))
        run = make_plan(shop, "smoke", json.dumps(best), "", home)
        assert run.candidates == [one.candidate]
        trial, train = TrainConfig.parse(one.config), run.configs["train"]
        assert isinstance(train, TrainConfig)
        assert train.training.determines_result() == trial.training.determines_result()
        assert train.training.candidates[one.candidate] == trial.training.candidates[one.candidate]
        assert trial.training.seed == 5


def test_a_trial_of_the_study_says_when_it_was(tmp_path):
    asked = Asked(trial=0, rung=0, share=1, candidate="esmm", params="{}", config="{}")
    result = Result(
        trial=0, rung=0, share=1, value=0.5, steps=1, best_step=1, rows=1, started="2026-01-01T00:00:00.5Z",
        ended="2026-01-01T00:00:02Z",
    )  # fmt: skip
    trial = studies.standing(studies.new(asked.trial, {}, {}), result, 0)
    assert trial.duration is not None
    assert trial.duration.total_seconds() == 1.5
