"""The first task of a run: what is there (data, champion, code), what to do, and each stage's share of it as JSON.

KFP runs the function's source alone, so the fields stand in its signature; `planning.Planned.outputs` fills them.
"""

from typing import Dict, List, NamedTuple  # noqa: UP035 (KFP reads typing.List)

from kfp import dsl

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan(data: str, recipe: str, overrides: str, as_of: str) -> NamedTuple(  # type: ignore[valid-type]
    "Plan",
    [
        ("as_of", str),
        ("candidates", List[str]),  # noqa: UP006
        ("ingest", str),
        ("validate", str),
        ("retrieve", str),
        ("encode", str),
        ("train", str),
        ("evaluate", str),
        ("parity", str),
        ("package", str),
        ("materialize", str),
        ("smoke_test", str),
        ("promote", str),
    ],
):
    """Resolves as-of, feature spec, champion and code version into one JSON a stage."""
    from pathlib import Path

    from components.contracts.paths import Home
    from components.contracts.record import stage
    from pipelines.planning import make_plan

    with stage("plan") as facts:
        made = make_plan(Path(data), recipe, overrides, as_of, Home.from_environment())
        facts.update(made.facts)
        return made.outputs()


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def each(candidates: List[str], config: str) -> List[Dict[str, str]]:  # noqa: UP006
    """The loop's items, one a candidate, each with the training config (docs/adr/0001)."""
    return [{"candidate": candidate, "config": config} for candidate in candidates]


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def plan_sweep(data: str, recipe: str, overrides: str, as_of: str, rounds: int) -> NamedTuple(  # type: ignore[valid-type]
    "SweepPlan",
    [
        ("ingest", str),
        ("validate", str),
        ("retrieve", str),
        ("encode", str),
        ("search", str),
        ("choose", str),
    ],
):
    """As plan, for a search of so many rounds: the same stages up to encode, and the search's own config."""
    from pathlib import Path

    from components.contracts.paths import Home
    from components.contracts.record import stage
    from pipelines.sweep_planning import make_sweep_plan

    with stage("plan") as facts:
        made = make_sweep_plan(Path(data), recipe, overrides, as_of, rounds, Home.from_environment())
        facts.update(made.facts)
        return made.outputs()
