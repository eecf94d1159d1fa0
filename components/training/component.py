"""KFP shells of training: an import and a call each."""

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


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def launch(candidate: str, config: str, job: str, encoded: Input[Dataset], model: Output[Model]) -> None:
    """As `train`, in the pods of a TrainJob. `job`: JSON of a LaunchConfig."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.training.config import TrainConfig
    from components.training.launch import run
    from components.training.train_job import LaunchConfig

    told = LaunchConfig.parse(job)
    with stage(f"train-{candidate}") as facts:
        facts.update(run(candidate, TrainConfig.parse(config), told, Path(encoded.path), Path(model.path)))
