"""A TrainJob's manifest: Kubeflow's own models take it, and nothing that they would not."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
from training.trainer_api import problem

from components.contracts.errors import UsageError
from components.training import job
from components.training.train_job import (
    LaunchConfig,
    Pod,
    TrainJobConfig,
    manifest,
    name_of,
    request_hash,
)


def launch(**job: Any) -> LaunchConfig:
    return LaunchConfig(
        image="registry.example/esmm:1", pod=Pod(), time_limit_seconds=3600, job=TrainJobConfig(claim="shared", **job)
    )


def made(**job: Any) -> dict[str, Any]:
    return manifest("esmm-esmm-0123456789", "0" * 64, "esmm", launch(**job))


def test_kubeflows_models_take_it() -> None:
    for told in ({}, {"nodes": 4, "processes": 8}, {"runtime": "torch-own", "restarts": 0}):
        assert problem(made(**told)) == ""
    on_cpu = LaunchConfig(image="i", pod=Pod(accelerator=""), time_limit_seconds=1, job=TrainJobConfig(claim="c"))
    made_for_cpu = manifest("esmm-base-0123456789", "0" * 64, "base", on_cpu)
    assert problem(made_for_cpu) == ""
    assert made_for_cpu["spec"]["trainer"]["resourcesPerNode"]["limits"] == {"memory": "16Gi"}


def test_what_it_asks_for() -> None:
    spec = made(nodes=2, processes=4)["spec"]
    trainer = spec["trainer"]
    assert (trainer["numNodes"], trainer["numProcPerNode"]) == (2, 4)
    assert trainer["resourcesPerNode"]["limits"]["nvidia.com/gpu"] == "4"
    assert spec["activeDeadlineSeconds"] == 3600
    (node,) = spec["runtimePatches"][0]["trainingRuntimeSpec"]["template"]["spec"]["replicatedJobs"]
    pod = node["template"]["spec"]["template"]["spec"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    mounts = {mount["mountPath"]: volumes[mount["name"]] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts["/dev/shm"]["emptyDir"] == {"medium": "Memory", "sizeLimit": "2Gi"}
    assert mounts["/mnt/esmm-training"]["persistentVolumeClaim"] == {"claimName": "shared"}


def test_the_check_of_this_test_notices() -> None:
    def refused(change: Any) -> str:
        changed = copy.deepcopy(made())
        change(changed)
        return problem(changed)

    assert "no model knows" in refused(lambda one: one["spec"].update(podTemplateOverrides=[]))
    assert "no model knows" in refused(lambda one: one["spec"]["trainer"].update(numProcesses=2))
    assert "does not fit" in refused(lambda one: one["spec"]["trainer"].update(numNodes="2"))
    assert "RFC 1035" in refused(lambda one: one["metadata"].update(name="1esmm"))
    assert "reserved" in refused(lambda one: one["spec"]["trainer"].update(env=[{"name": "PET_NNODES", "value": "1"}]))


def test_its_command_is_understood() -> None:
    trainer = made()["spec"]["trainer"]
    torchrun, arguments = trainer["args"][:3], trainer["args"][3:]
    assert trainer["command"] == ["python", "-m", "torch.distributed.run"]
    assert torchrun == ["--max-restarts=3", "-m", "components.training.job"]
    asked = job.parser().parse_args(arguments)
    folder = Path("/mnt/esmm-training/esmm-esmm-0123456789")
    assert (asked.candidate, asked.encoded, asked.model) == ("esmm", folder / "encoded", folder / "model")
    assert trainer["env"] == [{"name": "ESMM_HOME", "value": str(folder)}]


@pytest.mark.parametrize("candidate", ["esmm", "escm2-dr", "My_own candidate", "x" * 90, "Ä"])
def test_names_are_labels_and_follow_the_request(candidate: str) -> None:
    ours = request_hash(candidate, "{}", "data", launch())
    name = name_of(candidate, ours)
    assert len(name) <= 40
    assert problem(manifest(name, ours, candidate, launch())) == ""
    others = [
        request_hash(candidate, '{"seed":1}', "data", launch()),
        request_hash(candidate, "{}", "other", launch()),
        request_hash(candidate, "{}", "data", launch(nodes=2)),
    ]
    assert len({name, *(name_of(candidate, other) for other in others)}) == 4


@pytest.mark.parametrize(
    ("pod", "key"), [({"memory": "16 GB"}, "memory"), ({"cpu": "four"}, "cpu"), ({"shared_memory": "-1"}, "shared")]
)
def test_quantities_are_checked(pod: dict[str, str], key: str) -> None:
    with pytest.raises(UsageError, match=key):
        Pod.parse(pod)
