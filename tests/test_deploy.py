"""What is shipped for running nodes and workers elsewhere is read and compared with the code that it speaks of."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from carina import __version__
from carina.cli.main import Verbs
from carina.config import DicomSettings, Settings, load_settings
from carina.jobs.estimate import memory_mb
from carina.jobs.machine import SHARE
from served_nodes import opened, serving

ROOT = Path(__file__).resolve().parents[1]
DEPLOY = ROOT / "deploy"
UNIT, IMAGE = DEPLOY / "carina.service", DEPLOY / "Containerfile"
USER = 10001
LARGE = 512 * 512 * 400
"""The voxels of a study that there must be room for."""


def documents() -> list[dict[str, Any]]:
    files = [DEPLOY / "kubernetes" / name for name in ("node.yaml", "cohort.yaml")]
    return [document for file in files for document in yaml.safe_load_all(file.read_text())]


def one(kind: str) -> dict[str, Any]:
    (found,) = (document for document in documents() if document["kind"] == kind)
    return found


def pod(kind: str) -> dict[str, Any]:
    spec: dict[str, Any] = one(kind)["spec"]["template"]["spec"]
    return spec


def container(kind: str) -> dict[str, Any]:
    (found,) = pod(kind)["containers"]
    assert isinstance(found, dict)
    return found


PODS = ("StatefulSet", "Job")


def parsed(words: Sequence[str]) -> click.Command:
    """The command that a command line reaches; each of its options and arguments is one that the command has."""
    command: click.Command = Verbs("carina")
    rest = list(words)
    while isinstance(command, click.Group):
        found = command.get_command(click.Context(command), rest[0])
        assert found is not None, f"carina {' '.join(words)}: there is no {rest[0]}"
        command, rest = found, rest[1:]
    command.make_context("carina", rest)
    return command


def settings_of_the_map(tmp_path: Path) -> Settings:
    file = tmp_path / "carina.toml"
    file.write_text(one("ConfigMap")["data"]["carina.toml"])
    return load_settings(file, {})


@pytest.mark.parametrize("number", range(len(documents())))
def test_kubernetes_takes_the_manifests(number: int) -> None:
    validator = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    for version in ("1.28", validator.latest_version()):
        validator.validate(documents()[number], version, strict=True)


@pytest.mark.parametrize("kind", PODS)
def test_what_a_container_is_told_is_a_command_line_of_ours(kind: str) -> None:
    told = container(kind)
    lines = [told["args"]]
    for name, probe in told.items():
        if name.endswith("Probe"):
            program, *words = probe["exec"]["command"]
            assert program == "carina"
            lines.append(words)
    assert {parsed(line).name for line in lines} <= {"serve", "health", "worker"}
    assert all(line[-2:] == ["--config", "/etc/carina/carina.toml"] for line in lines)


@pytest.mark.parametrize("kind", PODS)
def test_containers_are_confined(kind: str) -> None:
    within = container(kind)["securityContext"]
    assert within["readOnlyRootFilesystem"] and within["capabilities"] == {"drop": ["ALL"]}
    assert not within["allowPrivilegeEscalation"]
    outer = pod(kind)["securityContext"]
    assert outer["runAsNonRoot"] and (outer["runAsUser"], outer["runAsGroup"]) == (USER, USER)
    assert not pod(kind)["automountServiceAccountToken"]


@pytest.mark.parametrize("kind", PODS)
def test_what_is_written_has_a_volume(kind: str, tmp_path: Path) -> None:
    mounts = {mount["mountPath"]: mount for mount in container(kind)["volumeMounts"]}
    writable = {path for path, mount in mounts.items() if not mount.get("readOnly")}
    assert writable == {settings_of_the_map(tmp_path).node.folder, "/tmp"}
    assert {mount["name"] for mount in mounts.values()} == {volume["name"] for volume in pod(kind)["volumes"]}
    claims = [volume["persistentVolumeClaim"] for volume in pod(kind)["volumes"] if "persistentVolumeClaim" in volume]
    assert claims == [{"claimName": one("PersistentVolumeClaim")["metadata"]["name"]}]


@pytest.mark.parametrize("kind", PODS)
def test_a_large_study_fits_the_limits(kind: str) -> None:
    resources = container(kind)["resources"]
    assert resources["requests"] == resources["limits"]
    assert SHARE * int(resources["limits"]["memory"].removesuffix("Gi")) * 2**30 / 1e6 > memory_mb(LARGE) * 1.0


@pytest.mark.parametrize("kind", PODS)
def test_the_database_comes_from_the_secret(kind: str) -> None:
    (variable,) = container(kind)["env"]
    assert load_settings(None, {variable["name"]: "postgresql+psycopg://x"}).node.database == "postgresql+psycopg://x"
    told = (DEPLOY / "kubernetes" / "node.yaml").read_text()
    secret = variable["valueFrom"]["secretKeyRef"]
    assert f"secret generic {secret['name']} --from-literal={secret['key']}=" in told


def test_ports_are_those_of_the_settings(tmp_path: Path) -> None:
    settings = settings_of_the_map(tmp_path)
    assert container("StatefulSet")["ports"] == [{"name": "dicom", "containerPort": settings.dicom.port}]
    (port,) = one("Service")["spec"]["ports"]
    assert (port["port"], port["targetPort"]) == (settings.dicom.port, "dicom")
    labels = one("StatefulSet")["spec"]["template"]["metadata"]["labels"]
    assert one("Service")["spec"]["selector"] == labels == one("StatefulSet")["spec"]["selector"]["matchLabels"]
    assert f"port-forward carina-0 {settings.web.port} " in (DEPLOY / "kubernetes" / "node.yaml").read_text()


def test_the_image_is_small_and_not_roots(tmp_path: Path) -> None:
    text = IMAGE.read_text()
    (user,) = re.findall(r"^USER (\d+):(\d+)$", text, flags=re.M)
    assert user == (str(USER), str(USER)) and f"--uid {USER} --gid {USER}" in text
    wanted = {extra for listed in re.findall(r"\.whl\)\[([\w,]+)\]", text) for extra in listed.split(",")}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert wanted == {"postgres"} <= extras.keys()
    assert not any("torch" in package for extra in wanted for package in extras[extra])
    assert re.findall(r"^EXPOSE (\d+)$", text, flags=re.M) == [str(DicomSettings().port)]
    assert re.findall(r"^FROM (\S+)", text, flags=re.M) == ["$BASE", "$BASE"]
    (base,) = re.findall(r"^ARG BASE=(\S+)$", text, flags=re.M)
    assert base == "docker.io/library/debian:bookworm-slim"  # with its registry: Podman asks nobody else then


def test_what_the_image_starts_is_a_command_line_of_ours() -> None:
    text = IMAGE.read_text()
    begins = {
        word: yaml.safe_load(found) for word, found in re.findall(r"(?:^|\s)(CMD|ENTRYPOINT) (\[.*\])$", text, re.M)
    }
    assert begins["ENTRYPOINT"] == ["carina"]
    assert parsed(begins["CMD"]).name == "serve"
    (health,) = re.findall(r"HEALTHCHECK .*CMD (\[.*\])$", text, re.M)
    program, *words = yaml.safe_load(health)
    assert (program, parsed(words).name) == ("carina", "health")
    variables = dict(re.findall(r"(CARINA_\w+)=(\S+)", text))
    seen = load_settings(None, variables)
    assert (seen.node.folder, seen.dicom.host) == ("/var/lib/carina", "0.0.0.0")


def test_everything_is_of_this_version_and_for_research() -> None:
    files = [file for file in DEPLOY.rglob("*") if file.is_file()]
    assert len(files) == 5
    for file in files:
        assert "research use only" in file.read_text().lower(), file
    images = {container(kind)["image"] for kind in PODS}
    assert images == {f"carina:{__version__}"} == set(re.findall(r"carina:\d[\w.]+", IMAGE.read_text()))


@pytest.mark.parametrize("file", ["carina.service", "slurm/workers.sbatch"])
def test_scripts_start_what_there_is(file: str) -> None:
    text = (DEPLOY / file).read_text()
    lines = re.findall(r"^(?:ExecStart(?:Pre)?=|exec )(?:\S*/)?carina (.*)$", text, flags=re.M)
    assert {parsed(shlex.split(line)).name for line in lines} <= {"serve", "worker"}
    assert lines


def test_systemd_takes_the_unit_without_a_remark(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd is not installed")
    here = str(Path(sys.executable).with_name("carina"))
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/usr/local/bin/carina", here))
    done = subprocess.run([program, "verify", str(unit)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_unit_gives_up_in_the_end_and_not_before_a_database_can_be_up() -> None:
    said = dict(re.findall(r"^(RestartSec|StartLimitIntervalSec|StartLimitBurst)=(\d+)", UNIT.read_text(), flags=re.M))
    tried_s = int(said["RestartSec"]) * int(said["StartLimitBurst"])
    assert 600 <= tried_s < 3600 * int(said["StartLimitIntervalSec"]) / 2


def test_the_check_before_a_start_of_the_unit_tells_and_stops_none() -> None:
    assert re.findall(r"^ExecStartPre=(.)", UNIT.read_text(), flags=re.M) == ["-"]


def health(folder: Path, *words: str) -> tuple[int, str]:
    program = str(Path(sys.executable).with_name("carina"))
    done = subprocess.run([program, "health", *words], cwd=folder, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


def test_health_asks_the_node_that_runs(tmp_path: Path) -> None:
    node = opened(tmp_path)
    with serving(node) as url:
        assert health(tmp_path, "--live") == (0, "the node is alive\n")
        assert health(tmp_path) == (3, f"{url}/health/ready: 503: the node is starting\n")
    code, told = health(tmp_path, "--live")
    assert code == 3
    assert f"{url}/health/live: does not answer (" in told
