"""The part of a Kubernetes API that a launcher of TrainJobs speaks to, on loopback and strict.

An object is taken only if Kubeflow's generated models give it back unchanged (they drop a field that they do not know
and refuse one of another type) and if it keeps the rules beside them that the API server checks: the markers in
`pkg/apis/trainer/v1alpha1/trainjob_types.go` and the torch plugin's reserved environment, Trainer 2.3.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from kubeflow_trainer_api.models.trainer_v1alpha1_train_job import TrainerV1alpha1TrainJob
from kubernetes import client

COLLECTION = "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{}/trainjobs"
RESERVED = {"PET_NNODES", "PET_NPROC_PER_NODE", "PET_NODE_RANK", "PET_MASTER_ADDR", "PET_MASTER_PORT"}
Controller = Callable[[dict[str, Any]], None]


def problem(job: dict[str, Any]) -> str:
    """Why an API server would refuse a TrainJob; "" if it would not."""
    try:
        model = TrainerV1alpha1TrainJob.from_dict(job)
    except (ValueError, KeyError, TypeError) as error:
        return f"does not fit the models: {error}"
    assert model is not None
    if model.to_dict() != job:
        return f"has a field that no model knows: {job}"
    name, spec = job["metadata"].get("name", ""), job["spec"]
    trainer = spec.get("trainer", {})
    (patch,) = spec.get("runtimePatches", [{"manager": "none"}])
    rules = {
        "apiVersion or kind": (job["apiVersion"], job["kind"]) == ("trainer.kubeflow.org/v1alpha1", "TrainJob"),
        "metadata.name is no RFC 1035 label": re.fullmatch("[a-z]([-a-z0-9]*[a-z0-9])?", name) and len(name) <= 63,
        "runtimeRef.name is empty": spec["runtimeRef"]["name"],
        "activeDeadlineSeconds": spec.get("activeDeadlineSeconds", 1) >= 1,
        "an image of 500 letters at most": len(trainer.get("image", "")) <= 500,
        "128 arguments of 65,536 bytes at most": len(trainer.get("args", [])) <= 128
        and all(len(argument) <= 65_536 for argument in trainer.get("args", [])),
        "reserved environment": not RESERVED & {variable["name"] for variable in trainer.get("env", [])},
        "manager of 1 to 253 letters": 1 <= len(patch["manager"]) <= 253,
        "a quantity above its limit": all(
            trainer["resourcesPerNode"]["requests"].get(name, value) == value
            for name, value in trainer.get("resourcesPerNode", {}).get("limits", {}).items()
        ),
    }
    return "; ".join(rule for rule, kept in rules.items() if not kept)


def condition(kind: str, reason: str = "Reason", message: str = "", status: str = "True") -> dict[str, Any]:
    return {
        "type": kind,
        "status": status,
        "reason": reason,
        "message": message,
        "lastTransitionTime": "2026-11-29T00:00:00Z",
    }


class Api:
    """`jobs` by namespace and name. `controller` sees a job before each GET of it and may change its status.
    `failures`: answers (status, reason) that the next calls get instead of theirs."""

    def __init__(self) -> None:
        self.jobs: dict[tuple[str, str], dict[str, Any]] = {}
        self.controller: Controller = lambda job: None
        self.failures: list[tuple[int, str]] = []
        self.calls: list[str] = []
        self.deletions_take = 0
        """GETs after which a deleted job is gone."""

    def answer(self, verb: str, path: str, body: Any) -> tuple[int, Any]:
        self.calls.append(verb)
        if self.failures:
            status, reason = self.failures.pop(0)
            return self._status(status, reason)
        found = re.fullmatch(COLLECTION.format("([^/]+)") + "(?:/([^/?]+))?", path)
        if found is None or (verb == "POST") != (found[2] is None):
            return self._status(404, "NotFound", "the server could not find the requested resource")
        namespace = found[1]
        if verb == "POST":
            return self._create(namespace, body)
        key = (namespace, found[2])
        if key not in self.jobs:
            return self._status(404, "NotFound", f'trainjobs.trainer.kubeflow.org "{found[2]}" not found')
        job = self.jobs[key]
        if verb == "DELETE":
            job["metadata"]["deletionTimestamp"] = "2026-11-29T00:00:00Z"
            self._age(key)
            return 200, {"kind": "Status", "status": "Success"}
        if "deletionTimestamp" in job["metadata"]:
            self._age(key)
        else:
            self.controller(job)
            # What a controller says has to fit too; times come back as times, so only types are checked.
            TrainerV1alpha1TrainJob.from_dict(job)
        return 200, job

    def _create(self, namespace: str, job: Any) -> tuple[int, Any]:
        if wrong := problem(job):
            return self._status(422, "Invalid", wrong)
        key = (namespace, job["metadata"]["name"])
        if key in self.jobs:
            return self._status(409, "AlreadyExists", f'trainjobs.trainer.kubeflow.org "{key[1]}" already exists')
        self.jobs[key] = json.loads(json.dumps(job))
        return 201, self.jobs[key]

    def _age(self, key: tuple[str, str]) -> None:
        if self.deletions_take <= 0:
            del self.jobs[key]
        self.deletions_take -= 1

    @staticmethod
    def _status(code: int, reason: str, message: str = "") -> tuple[int, Any]:
        return code, {"kind": "Status", "apiVersion": "v1", "code": code, "reason": reason, "message": message}


@contextmanager
def serving(api: Api) -> Iterator[client.ApiClient]:
    """A connection to `api` over HTTP, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        def _do(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            try:
                status, answer = api.answer(self.command, self.path.partition("?")[0], body)
            except Exception as error:  # of a test's own controller: no launcher asks again after it
                status, answer = 400, {"message": repr(error)}
            text = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _do  # noqa: N815 (names of http.server)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        settings = client.Configuration(host=f"http://127.0.0.1:{server.server_address[1]}")
        settings.retries = False
        yield client.ApiClient(settings)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
