"""The data gate as a Kubeflow component: a thin shell around `validate.run`."""

from kfp import dsl
from kfp.dsl import HTML, Dataset, Input, Output

from components.contracts.image import IMAGE


@dsl.component(base_image=IMAGE, install_kfp_package=False)
def validate(
    config: str,
    impressions: Input[Dataset],
    features: Input[Dataset],
    clean: Output[Dataset],
    quarantine: Output[Dataset],
    docs: Output[HTML],
) -> None:
    """Checks the log and the feature tables, sets bad rows aside and closes the run if the data is not fit."""
    from pathlib import Path

    from components.contracts.record import stage
    from components.validation.validate import ValidateConfig, run

    with stage("validate") as facts:
        facts.update(
            run(
                ValidateConfig.parse(config),
                Path(impressions.path),
                Path(features.path),
                Path(clean.path),
                Path(quarantine.path),
                Path(docs.path),
            )
        )
