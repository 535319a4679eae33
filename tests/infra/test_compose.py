"""compose.yaml: docker-compose reads it, it exposes nothing by default, and its services' commands make a cluster that trains.

No containers, networks or volumes are created: that needs a daemon.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.config import parse_config
from tests.cluster.disturbed import Bench
from tests.debian import program
from tests.infra.as_processes import localized, run_to_end, serving, wait_for_scheduler
from tests.ports import free_port
from tests.sampling import ALL

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "compose"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    tree = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    found: dict[str, Any] = tree["services"]
    return found


def words(service: dict[str, Any], **variables: str) -> list[str]:
    """The command of a service as a list, compose's own variables filled in."""
    command = service["command"]
    found = shlex.split(command) if isinstance(command, str) else list(command)
    filled = [re.sub(r"(?<!\$)\$\{(\w+):-([^}]*)\}", lambda match: variables.get(match[1], match[2]), word) for word in found]
    return [word.replace("$$", "$") for word in filled]


def read_by_compose(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """The files as `docker-compose config` prints them: checked against compose's schema, with variables filled in."""
    if not shutil.which("docker-compose") and not ALL:
        pytest.skip("docker-compose is not here; make deployment installs it, make test has ten minutes")
    compose = program("docker-compose", "docker-compose")
    options = [word for name in names for word in ("-f", str(folder / name))]
    return subprocess.run([compose, *options, "config"], capture_output=True, text=True, timeout=60)


@pytest.fixture
def copies(tmp_path: Path) -> Path:
    """The files as Debian 12's docker-compose takes them too: it reads all but the project's name."""
    for path in FOLDER.glob("compose*.yaml"):
        (tmp_path / path.name).write_text(path.read_text().replace("name: w2v\n", "", 1))
    return tmp_path


def test_docker_compose_accepts_the_files_and_sees_a_misspelt_key(copies: Path) -> None:
    done = read_by_compose(copies, "compose.yaml", "compose.gpu.yaml")
    assert done.returncode == 0, done.stderr
    rendered = yaml.safe_load(done.stdout)
    assert set(rendered["services"]) >= {"keys", "scheduler", "worker", "postgres", "mlflow"}
    assert "${" not in done.stdout
    (copies / "compose.yaml").write_text((copies / "compose.yaml").read_text().replace("healthcheck:", "healthchek:", 1))
    assert "healthchek" in read_by_compose(copies, "compose.yaml").stderr


def test_nothing_but_mlflow_leaves_the_containers_and_that_to_loopback_only(services: dict[str, Any]) -> None:
    tree = yaml.safe_load((FOLDER / "compose.yaml").read_text())
    assert {name for name, network in tree["networks"].items() if not network.get("internal")} == {"pages"}
    assert [name for name, service in services.items() if "ports" in service] == ["mlflow"]
    assert all(port.startswith("127.0.0.1:") for port in services["mlflow"]["ports"])
    for name, service in services.items():
        assert service.get("network_mode") == "none" or service["networks"], f"{name} would be on the default network"
        assert not service.get("privileged")
        assert "/var/run/docker.sock" not in str(service)


def test_every_service_is_confined_and_those_that_serve_say_whether_they_do(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        if name != "postgres":
            assert (service["user"], service["read_only"]) == ("10001:10001", True), name
        if name not in ("keys", "w2v"):
            assert service["healthcheck"]["retries"] > 1, name
            assert service["restart"] == "unless-stopped", name


def test_no_password_is_in_the_file_or_on_a_command_line(services: dict[str, Any], tmp_path: Path) -> None:
    text = (FOLDER / "compose.yaml").read_text()
    assert re.findall(r"PASSWORD\w*:? *[:=] *([^\s,}]+)", text) == ["/password/postgres"]
    assert re.findall(r"://[^:/@\s]+:([^@\n]+)@", text) == ["$$(cat /password/postgres)"]
    shell = words(services["mlflow"])
    assert shell[:2] == ["sh", "-euc"]
    (tmp_path / "postgres").write_text("drawn-at-the-first-start")
    # The command that replaces the shell: its arguments, and the one variable that contains the address.
    shown = shell[2].replace("exec mlflow", "exec sh -c 'echo $0 $*; echo $MLFLOW_BACKEND_STORE_URI' mlflow")
    said = run_to_end(["sh", "-euc", *localized([shown], {"/password": str(tmp_path)})], tmp_path).splitlines()
    assert "drawn" not in said[0]
    assert said[1] == "postgresql+psycopg2://mlflow:drawn-at-the-first-start@postgres:5432/mlflow"


def test_the_configuration_beside_it_is_one(services: dict[str, Any]) -> None:
    config = parse_config(yaml.safe_load((FOLDER / "w2v.yaml").read_text()))
    assert config.cluster.address == "tls://scheduler:8786"
    mounts = " ".join(services["w2v"]["volumes"])
    for path in (config.run.workdir, *config.corpus.inputs, config.cluster.tls.ca_file if config.cluster.tls else ""):
        assert f":/{Path(path).parts[1]}" in mounts


@pytest.mark.slow
@pytest.mark.turns(10, 9, of="deployment")
def test_the_services_commands_make_a_cluster_that_trains_the_same_bits(
    services: dict[str, Any], bench: Bench, tmp_path: Path
) -> None:
    for folder in ("certs", "password"):
        (tmp_path / folder).mkdir()
    port = str(free_port("127.0.0.2"))
    places = {f"/{folder}/": f"{tmp_path}/{folder}/" for folder in ("certs", "password")}
    places |= {" /certs ": f" {tmp_path}/certs ", "127.0.0.1:8787": "127.0.0.1:0", "//scheduler:8786": f"//127.0.0.2:{port}"}
    places |= {"/etc/w2v/w2v.yaml": str(tmp_path / "w2v.yaml")}
    for _ in range(2):  # a second start changes nothing
        run_to_end(localized(words(services["keys"]), places), tmp_path)
    scheduler = localized(words(services["scheduler"]), places)
    scheduler[scheduler.index("8786")] = port
    workers = [localized(words(services["worker"], W2V_THREADS="2"), places) for _ in range(2)]
    beside = yaml.safe_load((FOLDER / "w2v.yaml").read_text())["cluster"]
    section = yaml.safe_load(localized([yaml.safe_dump(beside)], places)[0])
    config = bench.config_file("compose", before="shards", cluster=section)
    (tmp_path / "w2v.yaml").write_bytes(config.read_bytes())
    with serving(scheduler, *workers, folder=tmp_path):
        wait_for_scheduler("127.0.0.2", port)
        said = run_to_end([*localized(words(services["w2v"]), places), "--json", "--quiet"], tmp_path)
    assert f'"sha256": "{bench.digest}"' in said
