"""The Dockerfile: the files it copies exist, it installs the project's lock, and its user may write nothing.

`W2V_ALL=1` (`make image`) also runs its steps, in an empty environment and as another user; a complete build needs a daemon.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from tests.sampling import ALL
from tests.security.conftest import as_stranger
from tests.tiny import tiny_config, write_corpus

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra" / "image"


@dataclass
class Stage:
    """The part of a Dockerfile after one FROM."""

    base: str
    steps: list[tuple[str, str]] = field(default_factory=list)

    def all(self, instruction: str) -> list[str]:
        return [text for found, text in self.steps if found == instruction]


def stages(arguments: dict[str, str]) -> list[Stage]:
    """The stages of the Dockerfile, its arguments filled in."""
    text = re.sub(r"^\s*#.*\n", "", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE).replace("\\\n", " ")
    found: list[Stage] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, _, rest = line.partition(" ")
        if instruction == "ARG":
            name, _, default = rest.partition("=")
            arguments.setdefault(name, default)
            continue
        rest = re.sub(r"\$\{(\w+)\}", lambda match: arguments[match[1]], rest)
        if instruction == "FROM":
            found.append(Stage(rest))
        else:
            found[-1].steps.append((instruction, rest))
    return found


def pins(lock: Path) -> dict[str, str]:
    return dict(re.findall(r"^([a-z0-9_.-]+)==([^\s;]+)", lock.read_text(), flags=re.MULTILINE))


@pytest.mark.parametrize("lock", ["requirements.lock", "requirements-gpu.lock"])
def test_what_the_image_copies_is_there_and_goes_to_the_builder(lock: str) -> None:
    build, final = stages({"LOCK": lock})
    sent = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [path for text in build.all("COPY") for path in shlex.split(text)[:-1]]
    assert len(copied) >= 6
    for path in copied:
        assert (ROOT / path).exists(), path
        assert any(path == pattern or Path(path).match(pattern) for pattern in sent), (
            f".dockerignore keeps {path} from the builder"
        )
    assert final.all("COPY") == ["--from=build /opt/w2v /opt/w2v"]


def test_the_image_installs_the_projects_own_pins_with_hashes_and_nothing_that_only_tests_need() -> None:
    project, image, gpu = (
        pins(path) for path in (ROOT / "requirements.lock", FOLDER / "requirements.lock", FOLDER / "requirements-gpu.lock")
    )
    assert {name: version for name, version in image.items() if project.get(name) != version} == {}
    assert image.items() <= gpu.items()
    assert {"cupy-cuda13x"} <= gpu.keys() - image.keys()
    assert not image.keys() & {"pytest", "mypy", "ruff", "gensim", "hypothesis"}
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    assert {re.split(r"[^\w-]", name)[0].lower() for name in needed} <= image.keys()
    assert "psycopg2-binary" in image
    for lock in FOLDER.glob("*.lock"):
        assert lock.read_text().count("==") <= lock.read_text().count("--hash=")
        assert "://" not in lock.read_text()
    assert all("--require-hashes --no-deps" in text for text in stages({})[0].all("RUN") if "requirements.lock" in text)


def test_the_image_runs_as_nobody_in_particular_and_holds_no_secret() -> None:
    build, final = stages({})
    assert final.all("USER") == ["10001:10001"]
    after = final.steps[[name for name, _ in final.steps].index("USER") :]
    assert {name for name, _ in after} == {"USER", "WORKDIR", "CMD"}
    assert build.base.partition(" AS ")[0] == final.base, "the same Python"
    assert re.fullmatch(r"python:3\.\d+-slim-\w+", final.base)
    assert not re.search(
        r"password|secret|token", " ".join(text for _, text in build.steps + final.steps).replace("/password", ""), re.I
    )


@pytest.fixture
def place() -> Iterator[Path]:
    """An empty folder that everybody may enter, unlike pytest's own folders."""
    folder = Path(tempfile.mkdtemp(prefix="w2v-image."))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.skipif(not ALL, reason="minutes: make image")
@pytest.mark.timeout(1800)
def test_the_steps_of_the_image_make_a_program_that_another_user_runs(place: Path, stranger: int) -> None:
    """The steps as far as possible without a daemon: FROM is this machine's Python, COPY copies, RUN runs, / is a folder."""
    build, final = stages({})
    build_in(place, build)
    for name in ("tmp", "data"):
        (place / name).mkdir()
        os.chown(place / name, stranger, stranger)
    config = tiny_config(place / "data" / "work", write_corpus(place / "corpus", 1000), tracking={"enabled": False})
    (place / "c.yaml").write_text(yaml.safe_dump(config))
    environment = {name: moved(value, place) for name, value in variables(final).items()} | {"HOME": str(place / "tmp")}
    command = as_stranger(place / "opt/w2v/bin/w2v", "run", place / "c.yaml", "--json", "--quiet")
    done = subprocess.run(command, env=environment, cwd=place / "data", capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    assert '"sha256"' in done.stdout
    written = [path for path in (place / "opt").rglob("*") if path.lstat().st_uid == stranger]
    assert written == [], "the program writes nothing beside itself"


def build_in(place: Path, stage: Stage) -> None:
    """Carries out the steps of the first stage."""
    of_this_machine = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "SSL_"))}
    environment = {"PATH": os.environ["PATH"], "HOME": str(place)} | variables(stage) | of_this_machine
    for instruction, text in stage.steps:
        if instruction == "COPY":
            *sources, target = shlex.split(text)
            for source in sources:
                _copy(ROOT / source, target, place)
        elif instruction == "RUN":
            step = moved(text.replace("python -m venv", f"{a_python_for_all()} -m venv"), place)
            subprocess.run(["sh", "-euc", step], env=environment, check=True, timeout=1200, cwd="/")
    shutil.rmtree(place / "build")


def a_python_for_all() -> str:
    """A Python that another user may start, too; skips the test if there is none."""
    for found in (os.path.realpath(sys.executable), "/usr/bin/python3"):
        tried = subprocess.run(as_stranger("env", found, "-c", "import ensurepip"), capture_output=True)
        if tried.returncode == 0:
            return found
    pytest.skip("every Python of this machine lies where another user may not enter")


def variables(stage: Stage) -> dict[str, str]:
    return dict(word.split("=", 1) for text in stage.all("ENV") for word in shlex.split(text))


def moved(text: str, place: Path) -> str:
    """The text with the image's folders replaced by those here."""
    return re.sub(r"(?<![\w/.])/(opt/w2v|build|tmp)\b", lambda match: f"{place}/{match[1]}", text)


def _copy(source: Path, target: str, place: Path) -> None:
    where = place / target.lstrip("/")
    if source.is_dir():
        shutil.copytree(source, where, ignore=shutil.ignore_patterns("__pycache__"))
    else:
        into = where / source.name if target.endswith("/") else where
        into.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, into)
