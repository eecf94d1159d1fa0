"""From a pipeline's task to a TrainJob and back: create it, wait for it, bring the model home.

A launcher that is started again (its pod was evicted, say) finds the TrainJob by name and waits on. One that ends,
SIGTERM included, deletes its TrainJob, so that no GPU is held for nobody.
"""

from __future__ import annotations

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client
from kubernetes import config as kube_config
from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import HTTPError

from components.contracts.errors import ClusterError, DataError
from components.contracts.files import new_folder, read_json, read_manifest, write_text
from components.training.config import TrainConfig
from components.training.train_job import (
    GROUP,
    PLURAL,
    REQUEST,
    VERSION,
    LaunchConfig,
    manifest,
    name_of,
    request_hash,
)

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
COMPLETE, FAILED = "Complete", "Failed"
REQUEST_SECONDS = 30
"""That one call of the API may take."""
DELETION_SECONDS = 120
"""That a deleted TrainJob may take to be gone: its pods are given time to end."""


def run(
    candidate: str,
    config: TrainConfig,
    launch: LaunchConfig,
    encoded: Path,
    model: Path,
    connection: client.ApiClient | None = None,
) -> dict[str, Any]:
    """Trains `candidate` as a TrainJob and leaves its model artifact in `model`, as `train.run` would have.

    `connection` None: as the pod's service account, or as the kubeconfig says.

    Returns:
        The facts of the training, the TrainJob's name and how many nodes it had.

    Raises:
        ClusterError: the API refused, the name is taken by something else, or the TrainJob failed, vanished or took
            longer than the time limit. What lies on the claim is kept, for the next try to go on from.
        DataError, CorruptArtifact: `encoded`, or the model that came back, is not what its manifest says.
    """
    jobs = TrainJobs(launch, connection or _connect())
    request = request_hash(candidate, config.to_json(), read_manifest(encoded)["fingerprint"], launch)
    name = name_of(candidate, request)
    folder = _hand_over(Path(launch.job.mount) / name, config, encoded)
    with _sigterm_raises():
        jobs.start(manifest(name, request, candidate, launch))
        try:
            jobs.wait(name)
            facts = _bring_home(folder, model)
        finally:
            jobs.delete(name)
    shutil.rmtree(folder)
    return {**facts, "train_job": name, "nodes": launch.job.nodes}


class TrainJobs:
    """The TrainJobs of a namespace."""

    def __init__(self, launch: LaunchConfig, connection: client.ApiClient) -> None:
        self.poll, self.limit = launch.job.poll_seconds, launch.time_limit_seconds
        self.namespace = launch.job.namespace or _own_namespace()
        self.where: dict[str, Any] = {"group": GROUP, "version": VERSION, "namespace": self.namespace, "plural": PLURAL}
        self.where["_request_timeout"] = REQUEST_SECONDS
        self.api = client.CustomObjectsApi(connection)

    def start(self, job: dict[str, Any]) -> None:
        """Creates the TrainJob, or takes over one of the same request that has not failed."""
        name, request = job["metadata"]["name"], job["metadata"]["annotations"][REQUEST]
        if self._create(job):
            return
        found = self._get(name)
        if found is not None:
            if found["metadata"].get("annotations", {}).get(REQUEST) != request:
                raise ClusterError(
                    f"{self._called(name)} exists and is not of this pipeline: delete it, or choose another namespace"
                )
            if FAILED not in _conditions(found) and "deletionTimestamp" not in found["metadata"]:
                _say(f"{self._called(name)} runs already: waiting for it")
                return
            self.delete(name)
            self._until_gone(name)
        if not self._create(job):
            raise ClusterError(
                f"{self._called(name)} was created by somebody else just now: run the pipeline once only"
            )

    def wait(self, name: str) -> None:
        """Returns when the TrainJob is complete."""
        deadline = time.monotonic() + self.limit
        while True:
            found = self._patiently(name, deadline)
            if found is None:
                raise ClusterError(f"{self._called(name)} was deleted while it ran: run the pipeline again")
            conditions = _conditions(found)
            if COMPLETE in conditions:
                return
            if FAILED in conditions:
                why = conditions[FAILED]
                raise ClusterError(
                    f"{self._called(name)} failed ({why.get('reason', '')}: {why.get('message', '')}): see the log of "
                    f"its pods (kubectl logs -n {self.namespace} -l jobset.sigs.k8s.io/jobset-name={name})"
                )
            if time.monotonic() >= deadline:
                raise ClusterError(
                    f"{self._called(name)} did not end within {self.limit} seconds (conditions: "
                    f"{', '.join(conditions) or 'none, it may not have been scheduled'}): raise time_limit_seconds, "
                    "or see why its pods wait (kubectl describe pods)"
                )
            time.sleep(min(self.poll, max(0.0, deadline - time.monotonic())))

    def delete(self, name: str) -> None:
        """Deletes the TrainJob with its pods. If that fails it says so: the TrainJob ends by its own deadline."""
        try:
            self.api.delete_namespaced_custom_object(**self.where, name=name, propagation_policy="Background")
        except (ApiException, HTTPError) as error:
            if getattr(error, "status", None) != 404:
                _say(f"{self._called(name)} could not be deleted ({_reason(error)}): it ends by its own deadline")

    def _create(self, job: dict[str, Any]) -> bool:
        """False if one of that name exists."""
        try:
            self.api.create_namespaced_custom_object(**self.where, body=job)
        except ApiException as error:
            if error.status == 409:
                return False
            raise self._refused("create", job["metadata"]["name"], error) from None
        except HTTPError as error:
            raise self._refused("create", job["metadata"]["name"], error) from None
        return True

    def _get(self, name: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = self.api.get_namespaced_custom_object(**self.where, name=name)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found

    def _patiently(self, name: str, deadline: float) -> dict[str, Any] | None:
        """As `_get`; an API that is away or overloaded for a while is asked again until the deadline."""
        while True:
            try:
                return self._get(name)
            except (ApiException, HTTPError) as error:
                lasting = isinstance(error, ApiException) and error.status < 500 and error.status != 429
                if lasting or time.monotonic() >= deadline:
                    raise self._refused("get", name, error) from None
                _say(f"{self._called(name)}: the API did not answer ({_reason(error)}), asking again")
                time.sleep(self.poll)

    def _until_gone(self, name: str) -> None:
        deadline = time.monotonic() + DELETION_SECONDS
        while self._patiently(name, deadline) is not None:
            if time.monotonic() >= deadline:
                raise ClusterError(f"{self._called(name)} failed before and is not gone after its deletion: delete it")
            time.sleep(self.poll)

    def _called(self, name: str) -> str:
        return f"TrainJob {self.namespace}/{name}"

    def _refused(self, verb: str, name: str, error: ApiException | HTTPError) -> ClusterError:
        advice = "see that the Kubernetes API can be reached"
        if isinstance(error, ApiException) and error.status in (401, 403):
            advice = f"the service account needs create, get and delete on {PLURAL}.{GROUP} (docs/scale-out.md)"
        elif isinstance(error, ApiException) and error.status == 404:
            advice = (
                f"{PLURAL}.{GROUP}/{VERSION} is not known there: install Kubeflow Trainer 2.3, and see the namespace"
            )
        return ClusterError(f"cannot {verb} {self._called(name)} ({_reason(error)}): {advice}")


def _conditions(job: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Those that hold, by type."""
    found = (job.get("status") or {}).get("conditions") or []
    return {condition["type"]: condition for condition in found if condition.get("status") == "True"}


def _hand_over(folder: Path, config: TrainConfig, encoded: Path) -> Path:
    """Puts what the training reads on the claim, unless an earlier try did."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "config.json", config.to_json())
    if not (folder / "encoded").is_dir():
        with new_folder(folder / "encoded") as aside:
            shutil.copytree(encoded, aside, dirs_exist_ok=True)
    return folder


def _bring_home(folder: Path, model: Path) -> dict[str, Any]:
    """Copies the model, checked against its manifest; returns the training's facts."""
    try:
        read_manifest(folder / "model")
        facts: dict[str, Any] = read_json(folder / "facts.json")
    except DataError as error:
        raise type(error)(f"the TrainJob is complete, but what it left is not: {error}") from None
    shutil.copytree(folder / "model", model, dirs_exist_ok=True)
    return facts


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Kubernetes ends a pod by SIGTERM, which would otherwise skip every `finally`."""

    def ended(signum: int, frame: object) -> None:
        raise SystemExit(128 + signum)

    before = signal.signal(signal.SIGTERM, ended)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _connect() -> client.ApiClient:
    """Raises ClusterError if there is neither a service account nor a kubeconfig."""
    settings = client.Configuration()
    try:
        if OWN_NAMESPACE.is_file():
            kube_config.load_incluster_config(settings)
        else:
            kube_config.load_kube_config(client_configuration=settings)
    except kube_config.ConfigException as error:
        raise ClusterError(f"no way to a Kubernetes API ({error}): run on a cluster, or set KUBECONFIG") from None
    return client.ApiClient(settings)


def _own_namespace() -> str:
    """Raises ClusterError outside of a pod."""
    if not OWN_NAMESPACE.is_file():
        raise ClusterError("not in a pod, so there is no namespace of one's own: set train_job.namespace")
    return OWN_NAMESPACE.read_text().strip()


def _reason(error: ApiException | HTTPError) -> str:
    if isinstance(error, ApiException):
        return f"{error.status} {error.reason}".strip() + (f": {error.body}" if error.body else "")
    return f"{type(error).__name__}: {error}"


def _say(text: str) -> None:
    print(f"launch: {text}", file=sys.stderr, flush=True)
