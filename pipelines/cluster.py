"""Compiling the pipeline for a Kubeflow cluster. The compiled file is what a cluster runs; tests run it locally.

Nothing here was run on a cluster: the IR is compiled, its schema checked by KFP's own loader and run by kfp.local,
which ignores what only Kubernetes understands; TrainJobs are held to the models that Kubeflow generates from its API.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field

from components.contracts.config import Config
from components.contracts.errors import UsageError
from components.contracts.files import write_text
from components.contracts.image import IMAGE
from components.training.train_job import LaunchConfig, Pod, TrainJobConfig, manifest, name_of

LAUNCHER_SECONDS = 600
"""That a launcher may live on after its TrainJob's time limit: to copy data there and the model back."""


class ClusterConfig(Config):
    """What a cluster is asked for: `esmm compile --config FILE.json`, `--set pod.memory=32Gi`."""

    image: str = IMAGE
    """Of every component."""
    pod: Pod = Pod()
    """Of a training."""
    retries: int = Field(2, ge=0)
    """Of a training that failed, a pod that was evicted included."""
    retry_wait_seconds: int = Field(60, ge=0)
    """Before the first retry; twice as long before each further one."""
    time_limit_seconds: int = Field(6 * 3600, gt=0)
    """Of one training."""
    train_job: TrainJobConfig | None = None
    """None: a candidate trains in its task's own pod, as one process. Else as a TrainJob that the task launches."""

    def launch(self) -> LaunchConfig:
        """Raises UsageError without `train_job`."""
        if self.train_job is None:
            raise UsageError(
                "there is no TrainJob to write: name the claim that pipeline and training share, "
                "as in --set train_job.claim=esmm-training"
            )
        return LaunchConfig(
            image=self.image, pod=self.pod, time_limit_seconds=self.time_limit_seconds, job=self.train_job
        )


def compile_training(out: Path, cluster: ClusterConfig = ClusterConfig()) -> None:  # noqa: B008 (it is frozen)
    """Writes the training pipeline's IR to `out` (YAML). Byte-deterministic for one version of KFP and the sources."""
    from pipelines.training import training_with

    write_ir(training_with(trainer(cluster)), out, cluster.image)


def compile_sweep(out: Path, rounds: int, cluster: ClusterConfig = ClusterConfig()) -> None:  # noqa: B008
    """As `compile_training`, the search of so many rounds. Each trial trains in its task's own pod."""
    from components.training.trial_component import train_trial
    from pipelines.sweep import sweep_with

    def train_one(**inputs: Any) -> Any:
        return retried(in_own_pod(train_trial(**inputs), cluster), cluster)

    write_ir(sweep_with(rounds, train_one), out, cluster.image)


def write_ir(pipeline: Any, out: Path, image: str) -> None:
    """Compiles a pipeline, with every component on `image`."""
    from kfp import compiler

    with tempfile.TemporaryDirectory() as folder:
        aside = Path(folder) / "pipeline.yaml"
        compiler.Compiler().compile(pipeline, str(aside))
        documents = list(yaml.safe_load_all(aside.read_text()))
    for executor in executors(documents[0]):
        if executor["container"]["image"] == IMAGE:
            executor["container"]["image"] = image
    write_text(out, yaml.safe_dump_all(documents, sort_keys=True))


def executors(spec: dict[str, Any]) -> list[dict[str, Any]]:
    """The container executors of a pipeline spec."""
    return [e for e in spec["deploymentSpec"]["executors"].values() if "container" in e]


def trainer(cluster: ClusterConfig) -> Callable[..., Any]:
    """Makes a candidate's train task from `candidate`, `config` and `encoded`, with what it asks Kubernetes for."""
    from kfp import kubernetes

    from components.training.component import launch, train

    def as_train_job(**inputs: Any) -> Any:
        told = cluster.launch()
        task = launch(**inputs, job=told.to_json()).set_cpu_request("500m").set_memory_request("1Gi")
        kubernetes.mount_pvc(task, told.job.claim, told.job.mount)
        return kubernetes.set_timeout(task, cluster.time_limit_seconds + LAUNCHER_SECONDS)

    def make(**inputs: Any) -> Any:
        task = as_train_job(**inputs) if cluster.train_job else in_own_pod(train(**inputs), cluster)
        return retried(task, cluster)

    return make


def in_own_pod(task: Any, cluster: ClusterConfig) -> Any:
    """What a task that trains asks for."""
    from kfp import kubernetes

    pod = cluster.pod
    task.set_cpu_request(pod.cpu).set_memory_request(pod.memory).set_memory_limit(pod.memory)
    if pod.accelerator:
        task.set_accelerator_type(pod.accelerator).set_accelerator_limit(1)
    kubernetes.empty_dir_mount(task, "shared-memory", "/dev/shm", medium="Memory", size_limit=pod.shared_memory)
    return kubernetes.set_timeout(task, cluster.time_limit_seconds)


def retried(task: Any, cluster: ClusterConfig) -> Any:
    """Not in the DAG itself: kfp.local honours retries, and a failure that repeats would cost minutes there."""
    return task.set_retry(cluster.retries, backoff_duration=f"{cluster.retry_wait_seconds}s", backoff_factor=2.0)


def write_train_job(out: Path, cluster: ClusterConfig, candidate: str) -> None:
    """Writes the TrainJob that the pipeline would launch for `candidate`, as YAML.

    Its name ends in zeros where the pipeline puts the hash of what is trained.
    """
    request = "0" * 64
    job = manifest(name_of(candidate, request), request, candidate, cluster.launch())
    write_text(out, yaml.safe_dump(job, sort_keys=False))
