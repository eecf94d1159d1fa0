"""The Feast repository: applied by Feast's own command and by ours, it is the same; its command and UI work on it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from feast.repo_operations import get_repo_files
from features.made import at, view_table, write_features
from servers import free_port

import feature_repo
from components.contracts.errors import UsageError
from components.contracts.online import ENTITY_KEY_VERSION
from components.features import catalog
from feature_repo import store, views

REPO = Path(feature_repo.__file__).parent


VIEWS = ("user_profile", "item_activity", "ali_ccp_user")
CALLS = """
import json, sys
from click.testing import CliRunner
from feast.cli.cli import cli
said = []
for arguments in json.load(sys.stdin):
    done = CliRunner().invoke(cli, arguments)
    said.append([done.exit_code, done.stdout, done.output + repr(done.exception)])
print()
print(json.dumps(said))
"""
"""Feast's command, several times in one process: it takes seconds to import."""


def registered(opened, kind):
    """name -> what was declared, without the times at which it was."""
    found = {}
    for item in getattr(opened, f"list_{kind}")():
        proto = item.to_proto()
        proto.ClearField("meta")
        if kind == "feature_views":
            for source in (proto.spec.batch_source, proto.spec.stream_source, proto.spec.stream_source.batch_source):
                source.ClearField("meta")
        if kind == "feature_services":
            for projection in proto.spec.features:
                for source in (
                    projection.batch_source,
                    projection.stream_source,
                    projection.stream_source.batch_source,
                ):
                    source.ClearField("meta")
        if kind == "data_sources":
            proto.batch_source.ClearField("meta")
        found[item.name] = proto.SerializeToString(deterministic=True)
    return {name: proto for name, proto in found.items() if not name.startswith("__")}


@dataclass(frozen=True)
class Feast:
    """Feast's own command in a copy of the repository, as a person uses it: exported variables, and `feast`."""

    repo: Path
    features: Path
    folder: Path

    @property
    def environment(self):
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("ESMM_")},
            "PYTHONPATH": os.pathsep.join([str(self.repo.parent), str(REPO.parent), os.environ.get("PYTHONPATH", "")]),
            "ESMM_FEATURES_DIR": str(self.features), "ESMM_FEAST_DIR": str(self.folder), "ESMM_FEAST_PROJECT": "tiny",
        }  # fmt: skip

    @property
    def command(self):
        return Path(sys.executable).parent / "feast"

    def __call__(self, *calls):
        """Output of each, after all of them ended well."""
        done = subprocess.run(
            [sys.executable, "-c", CALLS],
            input=json.dumps([call.split() if isinstance(call, str) else call for call in calls]),
            cwd=self.repo, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        answers = json.loads(done.stdout.splitlines()[-1])
        for call, (code, _, everything) in zip(calls, answers, strict=True):
            assert code == 0, f"feast {call}: {everything}"
        return [output for _, output, _ in answers]


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    users = [
        {"user_id": "u1", "event": 1, "country": "de", "age_band": 3, "member_days": 40},
        {"user_id": "u1", "event": 5, "country": "fr", "age_band": 3, "member_days": 44},
        {"user_id": "u1", "event": 2, "created": 8, "country": "late"},
    ]
    tables = {
        "user_profile": view_table("user_profile", users),
        "item_activity": view_table("item_activity", [{"item_id": "i1", "event": 4, "item_clicks_7d": 7}]),
        "ali_ccp_user": view_table("ali_ccp_user", [{"group_id": "train-1", "event": 0, "f109_14": ["x"]}]),
    }
    return write_features(tmp_path_factory.mktemp("tables") / "features", tables)


@pytest.fixture(scope="module")
def feast(features, tmp_path_factory):
    """The repository applied by `feast apply`."""
    folder = tmp_path_factory.mktemp("feast")
    repo = folder / "checkout" / "feature_repo"
    shutil.copytree(REPO, repo, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "theirs").mkdir()
    found = Feast(repo, features, folder / "theirs")
    done = subprocess.run([found.command, "apply"], cwd=repo, env=found.environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return found


def test_feast_s_own_command_applies_the_same(feast, features, tmp_path):
    opened = store.open_store("tiny", tmp_path)
    store.apply(opened, features, VIEWS)
    other = store.open_store("tiny", feast.folder)
    for kind in ("entities", "feature_views", "feature_services", "data_sources"):
        assert registered(opened, kind) == registered(other, kind), kind
    assert set(registered(other, "feature_views")) == set(VIEWS)
    assert set(registered(other, "feature_services")) == {"esmm"}
    assert set(registered(other, "entities")) == {"user", "item", "group"}
    fields = {f.name: str(f.dtype) for f in other.get_feature_view("ali_ccp_user").features}
    assert (fields["f109_14"], fields["f109_14_weights"]) == ("Array(String)", "Array(Float64)")


def test_feast_s_own_command_reads_and_fills_the_store(feast):
    """Plan, list, describe, materialize, online and historical features: on this repository with its own store."""
    rows = [
        {"event_timestamp": at(days).isoformat(), "user_id": user}
        for user, days in (("u1", 3), ("u1", 8.5), ("u1", 0.5), ("u9", 3))
    ]
    asked = ("-f", "user_profile:country", "-f", "user_profile:member_days")
    plan, named, fields, country, _, _, online, past = feast(
        "plan",
        "feature-views list",
        "features list",
        "features describe country",
        "feature-services describe esmm",
        ["materialize", at(0).isoformat(), at(10).isoformat()],
        ["get-online-features", "-e", "user_id=u1", *asked],
        ["get-historical-features", "-d", json.dumps(rows), *asked],
    )
    assert "No changes to registry" in plan
    for view in VIEWS:
        assert re.search(rf"^{view} .*FeatureView", named, re.MULTILINE), named
    declared = {(v.name, f.name) for v in views.VIEWS if v.name in VIEWS for f in v.fields}
    listed = [line.split() for line in fields.splitlines()[1:]]
    assert {(view, name) for name, view, *_ in listed} == declared
    assert json.loads(country)[0]["Description"] == "Country the user lives in."
    now = json.loads(online)
    assert (now["country"], now["member_days"]) == (["fr"], [44])
    # "late" was created on the ninth day: known to the second row, but an older event than "fr".
    back = json.loads(past)
    assert [row["country"] for row in back] == ["de", "fr", None, None]
    assert [row["member_days"] for row in back] == [40, 44, None, None]


def test_feast_s_own_ui_shows_the_repository(feast):
    pytest.importorskip("grpc", reason="Feast's UI needs feast[grpcio]")
    port = free_port()
    command = [feast.command, "ui", "--host", "127.0.0.1", "--port", str(port)]
    said = feast.folder / "ui.log"
    with said.open("wb") as log:
        process = subprocess.Popen(command, cwd=feast.repo, env=feast.environment, stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        page = wait_for(f"{url}/", process, said)
        assert "<title>Feast Feature Store</title>" in page.text
        assert [project["id"] for project in ask(f"{url}/projects-list.json")["projects"]] == ["tiny"]
        found = {f["name"]: f for f in ask(f"{url}/api/v1/features?project=tiny")["features"]}
        for view in views.VIEWS:
            for field in view.fields if view.name in VIEWS else ():
                shown = found[field.name]
                assert (shown["description"], shown.get("tags", {})) == (field.description, field.tags)
        listed = ask(f"{url}/api/v1/feature_views?project=tiny")["featureViews"]
        assert {v["spec"]["name"]: v["spec"]["description"] for v in listed} == {
            view.name: view.description for view in views.VIEWS if view.name in VIEWS
        }
    finally:
        process.terminate()
        process.wait(30)


def wait_for(url, process, log):
    deadline = time.monotonic() + 120
    while True:
        try:
            return httpx.get(url, trust_env=False).raise_for_status()
        except httpx.TransportError:
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)


def ask(url):
    return httpx.get(url, trust_env=False, timeout=60).raise_for_status().json()


def test_feast_imports_definitions_alone():
    assert [path.name for path in get_repo_files(REPO)] == ["definitions.py"]


def test_definitions_without_a_features_folder_say_so(monkeypatch):
    monkeypatch.delenv("ESMM_FEATURES_DIR", raising=False)
    with pytest.raises(UsageError, match="ESMM_FEATURES_DIR is not set"):
        store.environment_features_dir()


def test_the_yaml_s_entity_keys_are_those_of_the_service(tmp_path):
    assert store.open_store("tiny", tmp_path).config.entity_key_serialization_version == ENTITY_KEY_VERSION


def test_only_present_views_are_built():
    assert [view.name for view in views.build("somewhere", ("item_profile", "something_else"))] == ["item_profile"]


def test_a_feature_is_one_line():
    lines = [
        line
        for name in ("views.py", "ali_ccp.py")
        for line in re.findall(r"^        field\(\"(\w+)\", .*\),$", (REPO / name).read_text(), re.MULTILINE)
    ]
    assert lines == [field.name for view in views.VIEWS for field in view.fields]


def test_the_table_for_the_docs_names_every_feature():
    rows = catalog.summary()
    named = {row[0].strip("`"): row for row in rows}
    fields = {field.name for view in views.VIEWS for field in view.fields}
    assert {name for name in fields if not name.endswith("_weights")} <= set(named)
    assert {"position", "f301"} <= set(named)
    assert not fields & {name for name in named if name.endswith("_weights")}
    assert named["f109_14"][1:] == (
        "`ali_ccp_user`", "list of strings, weighted", "bag, combiner mean, max_values 32",
    )  # fmt: skip
    assert named["price"][3] == "bucket, minimum 0"
