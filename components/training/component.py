"""KFP shell of training: an import and a call."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def train(candidate: str, config: str, encoded: Input[Dataset], model: Output[Model]) -> None:
    """One candidate trained on the encoded impressions; one that diverges is recorded as ineligible."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.training.train import TrainConfig, run

    with stage(f"train-{candidate}") as facts:
        facts.update(run(candidate, TrainConfig.parse(config), Path(encoded.path), Path(model.path)))
