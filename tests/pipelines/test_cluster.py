"""What the compiled pipeline asks a cluster for, and how it is told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp import components
from kfp.kubernetes import kubernetes_executor_config_pb2

from components.contracts.errors import UsageError
from components.contracts.image import IMAGE
from components.training.train_job import LaunchConfig, Pod, TrainJobConfig
from pipelines.cluster import ClusterConfig, compile_training, executors


def compiled(out: Path, **settings: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Pipeline spec and Kubernetes settings by executor."""
    compile_training(out, ClusterConfig.parse(settings))
    spec, platform = yaml.safe_load_all(out.read_text())
    return spec, platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]


def train_task(spec: dict[str, Any], name: str = "train") -> dict[str, Any]:
    (task,) = (
        c["dag"]["tasks"][name] for c in spec["components"].values() if name in c.get("dag", {}).get("tasks", {})
    )
    return task


def test_a_training_asks_for_its_pod(tmp_path: Path) -> None:
    spec, platform = compiled(tmp_path / "a.yaml")
    resources = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert resources["accelerator"] == {
        "type": "nvidia.com/gpu",
        "resourceType": "nvidia.com/gpu",
        "count": "1",
        "resourceCount": "1",
    }
    assert resources["resourceCpuRequest"] == "4"
    assert resources["resourceMemoryRequest"] == resources["resourceMemoryLimit"] == "16Gi"
    retries = train_task(spec)["retryPolicy"]
    assert retries == {
        "maxRetryCount": 2,
        "backoffDuration": "60s",
        "backoffFactor": 2.0,
        "backoffMaxDuration": "3600s",
    }
    asked = json_format.ParseDict(
        platform["exec-train"], kubernetes_executor_config_pb2.KubernetesExecutorConfig(), ignore_unknown_fields=False
    )
    (mount,) = asked.empty_dir_mounts
    assert (mount.mount_path, mount.medium, mount.size_limit) == ("/dev/shm", "Memory", "2Gi")
    assert asked.active_deadline_seconds == 6 * 3600


def test_settings_reach_it(tmp_path: Path) -> None:
    pod = {"accelerator": "", "cpu": "1500m", "memory": "4Gi", "shared_memory": "256Mi"}
    spec, platform = compiled(tmp_path / "a.yaml", pod=pod, retries=0, time_limit_seconds=60, image="r.example/esmm:1")
    resources = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert "accelerator" not in resources
    assert resources["resourceCpuRequest"] == "1500m"
    assert train_task(spec).get("retryPolicy", {}).get("maxRetryCount", 0) == 0
    assert platform["exec-train"]["activeDeadlineSeconds"] == "60"
    assert platform["exec-train"]["emptyDirMounts"][0]["sizeLimit"] == "256Mi"
    assert {executor["container"]["image"] for executor in executors(spec)} == {"r.example/esmm:1"}


def test_nothing_but_training_is_retried_or_bounded(tmp_path: Path) -> None:
    spec, platform = compiled(tmp_path / "a.yaml")
    tasks = [
        (name, task)
        for component in [*spec["components"].values(), {"dag": spec["root"]["dag"]}]
        for name, task in component.get("dag", {}).get("tasks", {}).items()
    ]
    assert [name for name, task in tasks if "retryPolicy" in task] == ["train"]
    assert list(platform) == ["exec-train"]


def test_the_dag_that_runs_here_knows_no_retries() -> None:
    from pipelines.training import training

    assert "retryPolicy" not in json.dumps(json_format.MessageToDict(training.pipeline_spec))


def test_as_a_train_job(tmp_path: Path) -> None:
    told = {"claim": "esmm-training", "nodes": 2, "processes": 4, "mount": "/mnt/shared"}
    spec, platform = compiled(tmp_path / "a.yaml", train_job=told, image="r.example/esmm:1", time_limit_seconds=600)
    assert "exec-train" not in spec["deploymentSpec"]["executors"]
    task = train_task(spec, "launch")
    assert task["retryPolicy"]["maxRetryCount"] == 2
    job = LaunchConfig.parse(task["inputs"]["parameters"]["job"]["runtimeValue"]["constant"])
    assert (job.job.nodes, job.job.processes, job.image) == (2, 4, "r.example/esmm:1")
    assert "accelerator" not in spec["deploymentSpec"]["executors"]["exec-launch"]["container"]["resources"]
    settings = platform["exec-launch"]
    assert settings["pvcMount"][0]["constant"] == "esmm-training"
    assert settings["pvcMount"][0]["mountPath"] == "/mnt/shared"
    assert int(settings["activeDeadlineSeconds"]) > 600
    assert task["componentRef"]["name"] == "comp-launch"
    assert (
        components.load_component_from_file(str(tmp_path / "a.yaml")).pipeline_spec.pipeline_info.name
        == "esmm-training"
    )


def test_compiling_is_deterministic(tmp_path: Path) -> None:
    for name in ("a.yaml", "b.yaml"):
        compile_training(tmp_path / name, ClusterConfig.parse({"train_job": {"claim": "c"}}))
    assert (tmp_path / "a.yaml").read_bytes() == (tmp_path / "b.yaml").read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"gpus": 2}, "unknown key 'gpus'"),
        ({"retries": -1}, "retries = -1"),
        ({"train_job": {"nodes": 2}}, "missing key 'train_job.claim'"),
        ({"train_job": {"claim": "Not a name"}}, "train_job.claim"),
        ({"train_job": {"claim": "c", "nodes": 0}}, "train_job.nodes = 0"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ClusterConfig.parse(settings)


def test_every_setting_is_documented() -> None:
    told = (Path(__file__).parents[2] / "docs" / "scale-out.md").read_text()
    for prefix, model in {"": ClusterConfig, "pod.": Pod, "train_job.": TrainJobConfig}.items():
        for name in model.model_fields.keys() - {"pod"}:
            assert f"`{prefix}{name}`" in told


def test_the_command_reads_a_file_and_single_values(esmm: Any, tmp_path: Path) -> None:
    (tmp_path / "cluster.json").write_text(json.dumps({"retries": 5, "pod": {"memory": "32Gi"}}))
    done = esmm("compile", "--out", tmp_path / "t.yaml", "--config", tmp_path / "cluster.json", "--set", "pod.cpu=8")
    assert done.exit_code == 0, done.stderr
    spec = next(yaml.safe_load_all((tmp_path / "t.yaml").read_text()))
    resources = spec["deploymentSpec"]["executors"]["exec-train"]["container"]["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceMemoryRequest"]) == ("8", "32Gi")
    assert train_task(spec)["retryPolicy"]["maxRetryCount"] == 5
    assert {executor["container"]["image"] for executor in executors(spec)} == {IMAGE}


def test_the_command_writes_a_train_job(esmm: Any, tmp_path: Path) -> None:
    out = tmp_path / "job.yaml"
    refused = esmm("compile", "--out", out, "--train-job", "esmm")
    assert refused.exit_code == 2
    assert "--set train_job.claim=" in refused.stderr
    done = esmm("compile", "--out", out, "--train-job", "esmm", "--set", "train_job.claim=shared", "--image", "r/e:1")
    assert done.exit_code == 0, done.stderr
    job = yaml.safe_load(out.read_text())
    assert job["kind"] == "TrainJob"
    assert job["spec"]["trainer"]["image"] == "r/e:1"
    assert job["metadata"]["name"] == "esmm-esmm-0000000000"
