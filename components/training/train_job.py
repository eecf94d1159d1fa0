"""A training as a Kubeflow TrainJob (trainer.kubeflow.org/v1alpha1, as of Trainer 2.3): settings and manifest.

The runtime named must be one of torch: Kubeflow's own is `torch-distributed`, whose one job and its container are
called `node`. Its controller hands torchrun the number of nodes and processes, rank and meeting point as PET_*.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Any

from pydantic import ConfigDict, Field

from components.contracts.config import Config
from components.contracts.files import sha256_json
from components.contracts.paths import HOME_VARIABLE

GROUP, VERSION, KIND, PLURAL = "trainer.kubeflow.org", "v1alpha1", "TrainJob", "trainjobs"
MANAGER = "esmm-pipeline"
REQUEST = "esmm-pipeline/request"
"""Annotation that holds the hash of what a TrainJob was asked to train: by it a launcher knows its own again."""
NODE = "node"
CPU = r"^\d+(\.\d+)?m?$"
MEMORY = r"^\d+([EPTGMK]i?)?$"
NAME = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
LONGEST_NAME = 40
"""Kubernetes allows 63, of which the pods' names need some for job and index."""


class Pod(Config):
    """What one training pod asks a node for. Every process in it gets one accelerator."""

    model_config = ConfigDict(coerce_numbers_to_str=True)

    accelerator: str = "nvidia.com/gpu"
    """Resource name of a GPU; "": the CPU alone."""
    cpu: str = Field("4", pattern=CPU)
    memory: str = Field("16Gi", pattern=MEMORY)
    """Asked for and limit, with what is in /dev/shm."""
    shared_memory: str = Field("2Gi", pattern=MEMORY)
    """Of /dev/shm: processes of one node exchange gradients through it, and a container's own is 64 MiB."""


class TrainJobConfig(Config):
    """How a TrainJob is spread out, and where it meets the pipeline."""

    claim: str = Field(pattern=NAME)
    """PersistentVolumeClaim, ReadWriteMany, that launcher and training pods mount: data in, checkpoints, model out."""
    mount: str = Field("/mnt/esmm-training", pattern="^/.+")
    nodes: int = Field(1, gt=0)
    processes: int = Field(2, gt=0)
    """Of each node."""
    restarts: int = Field(3, ge=0)
    """Times that torchrun starts a node's processes again, from the last checkpoint."""
    runtime: str = "torch-distributed"
    """Name of a ClusterTrainingRuntime."""
    namespace: str = Field("", pattern="^$|" + NAME)
    """"": the launcher's own."""
    poll_seconds: float = Field(10, gt=0)


class LaunchConfig(Config):
    """All that the launcher reads beside what is trained."""

    image: str
    pod: Pod
    time_limit_seconds: int = Field(gt=0)
    job: TrainJobConfig


def request_hash(candidate: str, config: str, data: str, launch: LaunchConfig) -> str:
    """Of all that decides what a TrainJob does. `config`: JSON; `data`: the encoded artifact's fingerprint."""
    return sha256_json([candidate, config, data, launch.to_json()])


def name_of(candidate: str, request: str) -> str:
    """The same for the same request, so that a launcher that is started again finds its TrainJob."""
    plain = re.sub("[^a-z0-9]+", "-", candidate.lower()).strip("-")
    return f"esmm-{plain}"[: LONGEST_NAME - 11] + f"-{request[:10]}"


def manifest(name: str, request: str, candidate: str, launch: LaunchConfig) -> dict[str, Any]:
    """The TrainJob that trains `candidate` from `<mount>/<name>/{config.json,encoded}` into `<mount>/<name>/model`.

    The folder is its home too, so that checkpoints outlive its pods.
    """
    job = launch.job
    folder = PurePosixPath(job.mount) / name
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": KIND,
        "metadata": {"name": name, "annotations": {REQUEST: request}},
        "spec": {
            "runtimeRef": {"apiGroup": GROUP, "kind": "ClusterTrainingRuntime", "name": job.runtime},
            "activeDeadlineSeconds": launch.time_limit_seconds,
            "trainer": {
                "image": launch.image,
                "command": ["python", "-m", "torch.distributed.run"],
                "args": [
                    *(f"--max-restarts={job.restarts}", "-m", "components.training.job"),
                    *("--candidate", candidate, "--config", str(folder / "config.json")),
                    *("--encoded", str(folder / "encoded"), "--model", str(folder / "model")),
                    *("--facts", str(folder / "facts.json")),
                ],
                "env": [{"name": HOME_VARIABLE, "value": str(folder)}],
                "numNodes": job.nodes,
                "numProcPerNode": job.processes,
                "resourcesPerNode": _resources(launch.pod, job.processes),
            },
            "runtimePatches": [
                {
                    "manager": MANAGER,
                    "trainingRuntimeSpec": {
                        "template": {"spec": {"replicatedJobs": [{"name": NODE, "template": _job(launch)}]}}
                    },
                }
            ],
        },
    }


def _resources(pod: Pod, processes: int) -> dict[str, dict[str, str]]:
    limits = {"memory": pod.memory}
    if pod.accelerator:
        limits[pod.accelerator] = str(processes)
    return {"requests": {"cpu": pod.cpu, **limits}, "limits": limits}


def _job(launch: LaunchConfig) -> dict[str, Any]:
    """The volumes of the training pods: the claim, and a /dev/shm in memory."""
    shared, work = "shared-memory", "training"
    volumes = [
        {"name": shared, "emptyDir": {"medium": "Memory", "sizeLimit": launch.pod.shared_memory}},
        {"name": work, "persistentVolumeClaim": {"claimName": launch.job.claim}},
    ]
    mounts = [{"name": shared, "mountPath": "/dev/shm"}, {"name": work, "mountPath": launch.job.mount}]
    pod = {"volumes": volumes, "containers": [{"name": NODE, "volumeMounts": mounts}]}
    return {"spec": {"template": {"spec": pod}}}
