"""The files for Docker Compose and Kubernetes: valid, tight, and about settings that exist.

Kubernetes' own schemas come with the validator. There is none of Compose offline: its file is only looked at here.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate  # type: ignore[import-untyped]
import pytest
import yaml  # type: ignore[import-untyped]

from gateway.config import SHIPPED, load
from gateway.settings.kinds import revealed

DEPLOY = Path(__file__).resolve().parent.parent / "deploy"
MANIFESTS = sorted(path for path in (DEPLOY / "kubernetes").glob("*.yaml") if path.name != "kustomization.yaml")
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


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.stem)
def test_manifests_are_valid(path: Path) -> None:
    """As Kubernetes' own schemas say, unknown keys included."""
    kubernetes_validate.validate(document(path), KUBERNETES, strict=True)


def test_the_validator_refuses() -> None:
    """A word that Kubernetes does not know is a mistake."""
    wrong = manifest("deployment")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinesProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


def test_all_manifests_are_applied() -> None:
    """The kustomization names each file."""
    assert sorted(manifest("kustomization")["resources"]) == [path.name for path in MANIFESTS]


def test_settings_exist(compose: Any, tmp_path: Path) -> None:
    """The shipped config takes each variable: a name that nobody knows is a mistake there."""
    ledger = manifest("secret")["stringData"]["ledger_url"]
    (tmp_path / "ledger_url").write_text(f"{ledger}\n")
    for environ in (compose["services"]["gateway"]["environment"], manifest("configmap")["data"]):
        assert all(name.startswith("DARKROOM_") for name in environ)
        config = load(SHIPPED, settings(environ, tmp_path))
        assert config.gateway.image_isolation == "process"
        assert revealed(config.gateway.limits_url) == "redis://redis:6379/0"
        assert revealed(config.gateway.ledger_url) == ledger
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


def test_no_way_to_the_metadata() -> None:
    """Https goes to public addresses alone."""
    blocks = [
        to["ipBlock"] for rule in manifest("networkpolicy")["spec"]["egress"] for to in rule["to"] if "ipBlock" in to
    ]

    assert {"169.254.0.0/16", "10.0.0.0/8", "100.64.0.0/10"} <= set(blocks[0]["except"])
    assert "fc00::/7" in blocks[1]["except"]
