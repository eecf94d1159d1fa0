"""A launcher against the API it speaks to: what it does on every end that a TrainJob can come to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kubernetes import client
from kubernetes import config as kube_config
from servers import free_port
from training.trainer_api import Api, condition, serving

from components.contracts.artifacts import read_model
from components.contracts.errors import ClusterError, CorruptArtifact, DataError
from components.contracts.files import read_manifest, write_json, write_manifest
from components.training import launch
from components.training.train_job import REQUEST, LaunchConfig, Pod, TrainJobConfig, manifest, name_of, request_hash

FACTS = {"candidate": "esmm", "eligible": True, "steps": 7}


class Cluster:
    """A claim, an API and a launcher."""

    def __init__(self, folder: Path, connection: Any, config: Any, encoded: Path) -> None:
        self.claim, self.model = folder / "claim", folder / "model"
        self.connection, self.config, self.encoded = connection, config, encoded

    def told(self, seconds: int = 60, **changes: Any) -> LaunchConfig:
        told = {"claim": "shared", "mount": str(self.claim), "namespace": "ml", "poll_seconds": 0.01, **changes}
        job = TrainJobConfig.parse(told)
        return LaunchConfig(image="esmm:1", pod=Pod(), time_limit_seconds=seconds, job=job)

    def launch(self, seconds: int = 60, **changes: Any) -> dict[str, Any]:
        told = self.told(seconds, **changes)
        return launch.run("esmm", self.config, told, self.encoded, self.model, self.connection)

    def folder_of(self, job: dict[str, Any]) -> Path:
        return self.claim / job["metadata"]["name"]


def trained(folder: Path) -> None:
    """What the training leaves on the claim."""
    (folder / "model").mkdir()
    (folder / "model" / "weights.safetensors").write_bytes(b"weights")
    write_manifest(folder / "model", candidate="esmm")
    write_json(folder / "facts.json", FACTS)


@pytest.fixture
def api() -> Api:
    return Api()


@pytest.fixture
def cluster(api: Api, tmp_path: Path, make_config: Any, encoded: Path) -> Iterator[Cluster]:
    with serving(api) as connection:
        yield Cluster(tmp_path, connection, make_config(), encoded)


def completes(cluster: Cluster) -> Any:
    """A controller: created, running at the first look, complete at the second."""

    def controller(job: dict[str, Any]) -> None:
        if "status" not in job:
            job["status"] = {"conditions": [condition("Suspended", "Resumed", status="False")]}
            return
        if not (cluster.folder_of(job) / "model").exists():
            trained(cluster.folder_of(job))
        job["status"] = {"conditions": [condition("Complete", "AllJobsCompleted")]}

    return controller


def test_it_brings_the_model_home(api: Api, cluster: Cluster) -> None:
    seen: list[dict[str, Any]] = []

    def controller(job: dict[str, Any]) -> None:
        read_manifest(cluster.folder_of(job) / "encoded")
        assert (cluster.folder_of(job) / "config.json").read_text() == cluster.config.to_json()
        seen.append(job)
        completes(cluster)(job)

    api.controller = controller
    facts = cluster.launch(nodes=2, processes=4)
    name = seen[0]["metadata"]["name"]
    assert facts == {**FACTS, "train_job": name, "nodes": 2}
    assert (cluster.model / "weights.safetensors").read_bytes() == b"weights"
    read_manifest(cluster.model)
    assert api.jobs == {}, "what ended is deleted"
    assert list(cluster.claim.iterdir()) == [], "and the claim is emptied"


def test_a_failed_one_says_why_and_keeps_the_claim(api: Api, cluster: Cluster) -> None:
    def controller(job: dict[str, Any]) -> None:
        job["status"] = {"conditions": [condition("Failed", "JobsFailed", "jobset failed due to one or more job")]}

    api.controller = controller
    with pytest.raises(ClusterError, match="JobsFailed: jobset failed due to one or more job") as caught:
        cluster.launch()
    assert "kubectl logs -n ml" in str(caught.value)
    assert api.jobs == {}
    (folder,) = cluster.claim.iterdir()
    assert (folder / "encoded").is_dir()
    assert not cluster.model.exists()


def test_it_does_not_wait_for_ever(api: Api, cluster: Cluster) -> None:
    began = time.monotonic()
    with pytest.raises(ClusterError, match=r"did not end within 1 seconds \(conditions: none, it may not have been"):
        cluster.launch(seconds=1)
    assert 1 <= time.monotonic() - began < 10
    assert api.jobs == {}


def left_behind(api: Api, cluster: Cluster, **annotations: str) -> dict[str, Any]:
    """The TrainJob that `cluster` would create, as one that was killed outright leaves it."""
    told = cluster.told()
    request = request_hash("esmm", cluster.config.to_json(), read_manifest(cluster.encoded)["fingerprint"], told)
    job = manifest(name_of("esmm", request), request, "esmm", told)
    job["metadata"]["annotations"].update(annotations)
    api.jobs["ml", job["metadata"]["name"]] = job
    return job


def test_a_launcher_started_again_waits_for_its_own(api: Api, cluster: Cluster) -> None:
    job = left_behind(api, cluster)
    api.controller = completes(cluster)
    assert cluster.launch()["train_job"] == job["metadata"]["name"]
    assert api.calls.count("POST") == 1, "refused once, as existing, and then waited for"


def test_one_that_failed_before_is_replaced(api: Api, cluster: Cluster) -> None:
    left_behind(api, cluster)["status"] = {"conditions": [condition("Failed", "JobsFailed")]}
    api.deletions_take = 2
    old = dict(api.jobs)

    def controller(job: dict[str, Any]) -> None:
        if job is not next(iter(old.values())):
            completes(cluster)(job)

    api.controller = controller
    assert cluster.launch()["steps"] == 7
    assert api.calls.count("POST") == 2


def test_a_name_that_is_taken_is_left_alone(api: Api, cluster: Cluster) -> None:
    left_behind(api, cluster, **{REQUEST: "of somebody else"})
    with pytest.raises(ClusterError, match="exists and is not of this pipeline"):
        cluster.launch()
    assert len(api.jobs) == 1


def test_one_that_was_deleted_meanwhile(api: Api, cluster: Cluster) -> None:
    api.controller = lambda job: api.jobs.clear()
    with pytest.raises(ClusterError, match="was deleted while it ran"):
        cluster.launch()


def test_an_api_that_is_away_for_a_while_is_asked_again(
    api: Api, cluster: Cluster, capsys: pytest.CaptureFixture[str]
) -> None:
    looks: list[int] = []

    def controller(job: dict[str, Any]) -> None:
        looks.append(1)
        if len(looks) == 1:
            api.failures += [(503, "ServiceUnavailable"), (429, "TooManyRequests")]
        completes(cluster)(job)

    api.controller = controller
    assert cluster.launch()["eligible"]
    said = capsys.readouterr().err
    assert "503" in said
    assert "429" in said


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        ((403, "Forbidden"), "needs create, get and delete on trainjobs.trainer.kubeflow.org"),
        ((404, "NotFound"), "install Kubeflow Trainer"),
        ((422, "Invalid"), "cannot create TrainJob ml/esmm-esmm-"),
    ],
)
def test_an_api_that_refuses(api: Api, cluster: Cluster, answer: tuple[int, str], advice: str) -> None:
    api.failures.append(answer)
    with pytest.raises(ClusterError, match=advice):
        cluster.launch()


def test_no_api_at_all(api: Api, cluster: Cluster) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        settings = client.Configuration(host=f"http://127.0.0.1:{probe.getsockname()[1]}")
    settings.retries = False
    cluster.connection = client.ApiClient(settings)
    with pytest.raises(ClusterError, match="see that the Kubernetes API can be reached"):
        cluster.launch()


@pytest.mark.parametrize("left", ["nothing", "half"])
def test_a_complete_one_without_a_whole_model(api: Api, cluster: Cluster, left: str) -> None:
    def controller(job: dict[str, Any]) -> None:
        if left == "half":
            trained(cluster.folder_of(job))
            (cluster.folder_of(job) / "model" / "weights.safetensors").write_bytes(b"weigh")
        job["status"] = {"conditions": [condition("Complete")]}

    api.controller = controller
    with pytest.raises(CorruptArtifact if left == "half" else DataError, match="the TrainJob is complete, but"):
        cluster.launch()
    assert not cluster.model.exists()
    assert api.jobs == {}


def test_a_launcher_that_is_ended_deletes_its_train_job(api: Api, cluster: Cluster) -> None:
    before = signal.getsignal(signal.SIGTERM)
    api.controller = lambda job: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as caught:
        cluster.launch()
    assert caught.value.code == 128 + signal.SIGTERM
    assert api.jobs == {}
    assert signal.getsignal(signal.SIGTERM) is before


def test_outside_of_a_cluster_it_says_so(cluster: Cluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(kube_config.kube_config, "KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    cluster.connection = None
    with pytest.raises(ClusterError, match="no way to a Kubernetes API"):
        cluster.launch()


def test_the_manifests_own_command_trains(api: Api, cluster: Cluster) -> None:
    """What the pods would run, with the environment that the torch plugin would give them, run here."""
    running: list[subprocess.Popen[str]] = []

    def controller(job: dict[str, Any]) -> None:
        if not running:
            running.append(_pod(job["spec"]["trainer"]))
        elif running[0].poll() is not None:
            said = running[0].communicate()[1]
            end = "Complete" if running[0].returncode == 0 else "Failed"
            job["status"] = {"conditions": [condition(end, message=said[-2000:])]}

    api.controller = controller
    training = cluster.config.training.model_copy(update={"max_steps": 4, "device": "cpu", "tables": "sharded"})
    cluster.config = cluster.config.model_copy(update={"training": training})
    facts = cluster.launch(processes=2, poll_seconds=0.2)
    assert (facts["steps"], facts["eligible"], facts["processes"]) == (4, True, 2)
    assert read_model(cluster.model).candidate == "esmm"


def _pod(trainer: dict[str, Any]) -> subprocess.Popen[str]:
    torchrun = {"PET_NNODES": "1", "PET_NODE_RANK": "0", "PET_NPROC_PER_NODE": str(trainer["numProcPerNode"])}
    torchrun |= {"PET_MASTER_ADDR": "127.0.0.1", "PET_MASTER_PORT": str(free_port())}
    torchrun |= {variable["name"]: variable["value"] for variable in trainer["env"]}
    command = [sys.executable, *trainer["command"][1:], *trainer["args"]]
    return subprocess.Popen(command, env={**os.environ, **torchrun}, stderr=subprocess.PIPE, text=True)
