"""KFP shell of the evaluate stage."""

from typing import List  # noqa: UP035 (KFP reads typing.List)

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Metrics, Model, Output

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def evaluate(
    config: str,
    models: Input[List[Model]],  # noqa: UP006
    dataset: Input[Dataset],
    winner: Output[Model],
    evaluation: Output[Dataset],
    report: Output[HTML],
    metrics: Output[Metrics],
) -> bool:
    """Scores the candidates, chooses the winner on validation, gates it on test; returns whether to promote it."""
    from pathlib import Path

    from components.contracts.files import write_json
    from components.contracts.record import stage
    from components.evaluation.evaluate import EvaluateConfig, run

    with stage("evaluate") as facts:
        facts.update(
            run(
                EvaluateConfig.parse(config),
                [Path(model.path) for model in models],
                Path(dataset.path),
                Path(winner.path),
                Path(evaluation.path),
                Path(report.path),
            )
        )
        for name, value in facts["metrics"].items():
            metrics.log_metric(name, value)
        # Without a file behind its URI, kfp.local takes the artifact for lost and never reuses the stage.
        write_json(Path(metrics.path), facts["metrics"])
        return bool(facts["promote"])
