"""KFP shells of the search. Round numbers are part of a stage's name in the run record."""

from typing import Dict, List  # noqa: UP035 (KFP reads typing.List)

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Output

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def begin(config: str, study: Output[Dataset], states: Output[Artifact]) -> None:
    """A study without trials. `config` is an argument so that another sweep begins another study."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.search.suggest import begin as start

    with stage("begin"):
        start(Path(study.path), Path(states.path))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def suggest(config: str, number: int, study: Input[Dataset]) -> List[Dict[str, str]]:  # noqa: UP006
    """The trainings of a round, as the items of a loop."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.search.config import SearchConfig
    from components.search.suggest import suggest as ask

    with stage(f"suggest-{number + 1}") as facts:
        asked = ask(SearchConfig.parse(config), number, Path(study.path))
        facts["asked"] = [{"trial": one.trial, "rung": one.rung, "share": one.share} for one in asked]
        return [one.item() for one in asked]


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def tell(
    config: str,
    number: int,
    asked: List[Dict[str, str]],  # noqa: UP006
    reached: Input[List[Artifact]],  # noqa: UP006
    study: Input[Dataset],
    states: Input[Artifact],
    told: Output[Dataset],
    kept: Output[Artifact],
) -> None:
    """What the round came to, in the study; the states of trials that may go on."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.contracts.trial import Asked
    from components.search.config import SearchConfig
    from components.search.tell import tell as write

    with stage(f"tell-{number + 1}") as facts:
        trials = [Asked.parse(item["asked"]) for item in asked]
        paths = [Path(part.path) for part in (study, states, told, kept)]
        facts.update(write(SearchConfig.parse(config), trials, [Path(state.path) for state in reached], *paths))


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def choose(config: str, study: Input[Dataset], best: Output[Artifact]) -> None:
    """The best trial's config, here and in the run folder (never cached)."""
    from pathlib import Path

    from components.contracts.paths import run_dir
    from components.contracts.record import stage
    from components.search.choose import ChooseConfig
    from components.search.choose import choose as write

    with stage("choose") as facts:
        facts.update(write(ChooseConfig.parse(config), Path(study.path), Path(best.path), run_dir()))
