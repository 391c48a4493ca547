"""The files for Docker Compose and Kubernetes: valid, tight, and about settings that exist.

Kubernetes' own schemas come with the validator. There is none of Compose offline: its file is only looked at here.
"""

from __future__ import annotations

import argparse
import ast
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from gateway.settings.loader import SHIPPED, load
from gateway.settings.types import secret_text
from providers.worker.engines import SHIPPED as SHIPPED_ENGINES
from providers.worker.main import add_arguments
from tests.support.paths import ROOT
from tests.support.workers import PLAY, worker

DEPLOY = ROOT / "deploy"
FOLDERS = (DEPLOY / "kubernetes", DEPLOY / "kubernetes" / "worker")


def manifests(folder: Path) -> list[Path]:
    """What a folder's kustomization applies."""
    return sorted(path for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")


MANIFESTS = [path for folder in FOLDERS for path in manifests(folder)]
KUBERNETES = "1.33"
# What is read from the environment beside the settings.
OWN = {"DARKROOM_ADMIN_KEY_FILE", "DARKROOM_DATA"}


def document(path: Path) -> Any:
    """One file's only document."""
    return yaml.safe_load(path.read_text())


def manifest(name: str) -> Any:
    """One manifest."""
    return document(DEPLOY / "kubernetes" / f"{name}.yaml")


@pytest.fixture(scope="module")
def compose() -> Any:
    """The compose file."""
    return document(DEPLOY / "compose.yaml")


def settings(found: Mapping[str, str], secrets: Path) -> dict[str, str]:
    """The variables that are settings, the files of the secrets being in another folder."""
    here = {name: value for name, value in found.items() if name not in OWN}
    return {
        name: str(secrets / Path(value).name) if name.endswith("_URL_FILE") else value for name, value in here.items()
    }


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.relative_to(DEPLOY).as_posix())
def test_manifests_are_valid(path: Path) -> None:
    """As Kubernetes' own schemas say, unknown keys included."""
    kubernetes_validate.validate(document(path), KUBERNETES, strict=True)


def test_the_validator_refuses() -> None:
    """A word that Kubernetes does not know is a mistake."""
    wrong = manifest("deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_all_manifests_are_applied(folder: Path) -> None:
    """The kustomization names each file."""
    applied = document(folder / "kustomization.yaml")["resources"]
    assert sorted(applied) == [path.name for path in manifests(folder)]


def test_settings_exist(compose: Any, tmp_path: Path) -> None:
    """The shipped config takes each variable: a name that nobody knows is a mistake there."""
    ledger = manifest("secret")["stringData"]["ledger_url"]
    (tmp_path / "ledger_url").write_text(f"{ledger}\n")
    for environ in (compose["services"]["gateway"]["environment"], manifest("configmap")["data"]):
        assert all(name.startswith("DARKROOM_") for name in environ)
        config = load(SHIPPED, settings(environ, tmp_path))
        assert config.gateway.image_isolation == "process"
        assert secret_text(config.gateway.limits_url) == "redis://redis:6379/0"
        assert secret_text(config.gateway.ledger_url) == ledger
        assert config.providers.replicate.key_file
    with pytest.raises(Exception, match="trusted_proxy"):
        load(SHIPPED, {"DARKROOM_GATEWAY__TRUSTED_PROXY": "[]"})


def test_there_is_time_to_end(compose: Any) -> None:
    """Both wait for longer than the gateway takes to end in good order."""
    grace = load(SHIPPED, {}).gateway.grace_s

    assert manifest("deployment")["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > grace
    assert int(compose["services"]["gateway"]["stop_grace_period"].removesuffix("s")) > grace


def test_the_pod_is_confined() -> None:
    """Kubernetes' restricted profile, a root that is read-only, no token of the cluster's."""
    pod = manifest("deployment")["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert pod["automountServiceAccountToken"] is False
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "livenessProbe", "readinessProbe", "resources"} <= container.keys()
    written = {mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")}
    assert written == {"/var/lib/darkroom", "/tmp"}


def test_the_containers_are_confined(compose: Any) -> None:
    """The gateway's root is read-only, it gains no privileges, and what it may take is bounded."""
    gateway = compose["services"]["gateway"]

    assert gateway["read_only"] is True
    assert gateway["cap_drop"] == ["ALL"]
    for service in compose["services"].values():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "mem_limit" in service
        assert not service["image"].endswith(":latest")
        assert ":" in service["image"]


def test_secrets_are_files(compose: Any) -> None:
    """No password or key stands in a variable of the files, and those that are named are given."""
    for name, service in compose["services"].items():
        for secret in service.get("secrets", []):
            assert secret in compose["secrets"], (name, secret)
        for variable, value in service.get("environment", {}).items():
            assert not variable.endswith(("_KEY", "_TOKEN", "_PASSWORD")), variable
            assert "@" not in str(value)
    keys = {item["key"] for item in manifest("deployment")["spec"]["template"]["spec"]["volumes"][2]["secret"]["items"]}
    assert keys == manifest("secret")["stringData"].keys()


def test_one_worker_a_card() -> None:
    """Each has one card, time to finish its picture, and arguments that the command takes; it is confined like the
    gateway, and reached by it alone."""
    workers = document(FOLDERS[1] / "statefulset.yaml")["spec"]["template"]["spec"]
    job = document(FOLDERS[1] / "fetch.yaml")["spec"]["template"]["spec"]
    (worker,), (fetch,) = workers["containers"], job["containers"]
    parser = argparse.ArgumentParser()
    add_arguments(parser)
    told = parser.parse_args(worker["command"][2:])

    assert worker["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert workers["terminationGracePeriodSeconds"] > told.grace
    assert (told.engine, told.webhooks) == ("tile-diffusion", True)
    assert fetch["command"][:4] == ["darkroom", "worker", "weights", "fetch"]
    assert worker["volumeMounts"][0] == {**fetch["volumeMounts"][0], "readOnly": True}
    for pod in (workers, job):
        assert pod["securityContext"] == manifest("deployment")["spec"]["template"]["spec"]["securityContext"]
        assert pod["automountServiceAccountToken"] is False
        assert pod["containers"][0]["securityContext"]["readOnlyRootFilesystem"] is True
    [ingress] = document(FOLDERS[1] / "networkpolicy.yaml")["spec"]["ingress"]
    assert ingress["from"] == [{"podSelector": {"matchLabels": {"app.kubernetes.io/name": "darkroom"}}}]


def test_the_probes_of_a_worker(tmp_path: Path) -> None:
    """They read the word in the health check's body, as a worker says it."""
    (container,) = document(FOLDERS[1] / "statefulset.yaml")["spec"]["template"]["spec"]["containers"]
    with worker(tmp_path, *PLAY) as running:
        for probe in ("startupProbe", "livenessProbe"):
            _, flag, code = container[probe]["exec"]["command"]
            command = [sys.executable, flag, code.replace("http://127.0.0.1:5000", running.url)]
            assert subprocess.run(command, check=False, timeout=30).returncode == 0
            gone = [sys.executable, flag, code.replace("http://127.0.0.1:5000", "http://127.0.0.1:9")]
            assert subprocess.run(gone, check=False, timeout=30, capture_output=True).returncode != 0
    with worker(tmp_path, "--engine", "play_engines:Unloadable", ready="SETUP_FAILED") as running:
        command = [sys.executable, flag, code.replace("http://127.0.0.1:5000", running.url)]
        assert subprocess.run(command, check=False, timeout=30).returncode != 0


def test_the_ray_application() -> None:
    """Its arguments are those that the application takes; the names of the engine and the route are ours."""
    [application] = document(DEPLOY / "ray" / "serve.yaml")["applications"]
    module, _, name = application["import_path"].partition(":")
    source = (DEPLOY.parent / (module.replace(".", "/") + ".py")).read_text()
    fields = {
        node.target.id
        for cls in ast.parse(source).body
        if isinstance(cls, ast.ClassDef) and cls.name == "Arguments"
        for node in cls.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }

    assert f"def {name}(" in source
    assert application["args"].keys() <= fields
    assert application["args"]["engine"] in SHIPPED_ENGINES


def test_no_way_to_the_metadata() -> None:
    """Https goes to public addresses alone."""
    blocks = [
        to["ipBlock"] for rule in manifest("networkpolicy")["spec"]["egress"] for to in rule["to"] if "ipBlock" in to
    ]

    assert {"169.254.0.0/16", "10.0.0.0/8", "100.64.0.0/10"} <= set(blocks[0]["except"])
    assert "fc00::/7" in blocks[1]["except"]
