"""Local processes on machines that lack what they need: a user's name, shared memory, open files, a loopback interface. The run
works, or ends within seconds with what is missing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.tiny import write_corpus

RUN = [sys.executable, "-m", "pipeline.cli", "run"]
PLAIN = {name: value for name, value in os.environ.items() if name not in ("LOGNAME", "USER", "LNAME", "USERNAME")}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    write_corpus(tmp_path / "texts", sentences=300)
    path = tmp_path / "run.yaml"
    path.write_text(
        "corpus: {inputs: [texts]}\nvocab: {min_count: 1}\ntrain: {vector_size: 8, epochs: 1, lanes: 2, copies: 2}\n"
        "cluster: {n_workers: 2}\ntracking: {enabled: false}\n"
    )
    return path


def on_a_machine(prepared: str, config: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The run in namespaces of its own, after a line of shell, which must succeed; skips for a user who may not make any."""
    apart = ["unshare", "--mount", *flags, "sh", "-c"]
    if subprocess.run([*apart, "mount -t tmpfs none /tmp"], capture_output=True).returncode:
        pytest.skip("this user may not make namespaces and mount in them")
    return subprocess.run(
        [*apart, f'{prepared} && exec "$@"', "sh", *RUN, str(config)],
        capture_output=True, text=True, timeout=280, env=PLAIN | environment,
    )  # fmt: skip


def test_a_user_whose_number_has_no_name_trains_on_workers(config: Path) -> None:
    """As in containers that choose the number (`docker run --user`). Without those settings systemd gives root no name either."""
    nameless = "for file in passwd nsswitch.conf; do mount --bind /dev/null /etc/$file; done && ! id -un"
    done = on_a_machine(nameless, config)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("options", ["size=64m,nr_inodes=2", "ro", "size=4k"])
def test_shared_memory_without_room_for_workers_is_named(config: Path, options: str) -> None:
    done = on_a_machine(f"mount -t tmpfs -o {options} none /dev/shm", config)
    assert done.returncode == 71, done.stderr
    assert "need a writable /dev/shm" in done.stderr
    assert "memory?" not in done.stderr


@pytest.mark.parametrize(("also", "code"), [("true", 0), ('head -c 9m /dev/zero > "$TMPDIR/fill"', 75)])
def test_shared_memory_that_fills_up_before_a_round_is_taken_elsewhere_or_told(
    config: Path, tmp_path: Path, also: str, code: int
) -> None:
    small, token = tmp_path / "small", tmp_path / "token"
    small.mkdir()
    mounts = f"mount -t tmpfs -o size=8m none /dev/shm && mount -t tmpfs -o size=8m none {small}"
    fill = f"while [ ! -s {token} ]; do sleep 0.05; done; head -c 9m /dev/zero > /dev/shm/fill; {also}; kill -CONT $(cat {token})"
    done = on_a_machine(f"{mounts} && {{ ({fill}) & }}", config, TMPDIR=str(small), W2V_FAILPOINT=f"round:0.0=stop,{token}")
    assert done.returncode == code, done.stderr
    assert ("round 1 was interrupted 20 times in a row; last: sharing parameters needs" in done.stderr) == bool(code)


def test_a_full_folder_for_temporary_files_is_named(config: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    done = on_a_machine(f"mount -t tmpfs -o nr_inodes=2 none {small}", config, TMPDIR=str(small))
    assert done.returncode == 74, done.stderr
    assert f"{small}: the file system has no room for another file" in done.stderr


def test_a_network_without_loopback_is_named(config: Path) -> None:
    done = on_a_machine("true", config, "--net")
    assert done.returncode == 69, done.stderr
    assert "talk over 127.0.0.1, where nothing can be reached" in done.stderr


@pytest.mark.parametrize(("n_workers", "code"), [("2", 69), ("null", 0)])
def test_without_proc_threads_train_and_processes_say_that_it_is_missing(config: Path, n_workers: str, code: int) -> None:
    config.write_text(config.read_text().replace("n_workers: 2", f"n_workers: {n_workers}"))
    done = on_a_machine("mount -t tmpfs none /proc", config)
    assert done.returncode == code, done.stderr
    assert ("Dask reads /proc, which is not mounted here" in done.stderr) == bool(code)


def test_a_limit_of_addresses_below_any_run_is_named(config: Path) -> None:
    command = ["bash", "-c", 'ulimit -v 600000; exec "$@"', "bash", *RUN, str(config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 71, done.stderr
    assert "this process may have 614 MB of addresses (ulimit -v), and a run takes at least 1.0 GB" in done.stderr


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        ("import pyarrow.parquet", "out of memory: this process has 1"),
        ("threading.stack_size(1 << 29); threading.Thread(target=print).start()", "no further thread or process can be started"),
        ("bytearray(1 << 29)", "out of memory: this process has 1"),
    ],
)  # fmt: skip
def test_what_fails_for_want_of_addresses_is_told_as_that_and_not_as_a_bug(lines: str, told: str) -> None:
    code = (
        "import resource, threading\nfrom pipeline.errors import explained\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * resource.getpagesize() + (100 << 20)\n"
        f"resource.setrlimit(resource.RLIMIT_AS, (size, size))\ntry: {lines}\n"
        "except Exception as error: print(explained(error))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told in done.stdout, done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become a user who has no other processes")
@pytest.mark.parametrize(
    ("limit", "told"),
    [
        (16, r"its processes take 30 threads, and after \d+ none could be started; raise the limit"),
        (1, r"no further thread or process can be started; raise the limit"),
    ],
)
def test_threads_are_asked_for_before_processes_fail_for_want_of_them(config: Path, limit: int, told: str) -> None:
    user, capabilities = 64321, "+dac_override,+dac_read_search"
    become = ["setpriv", f"--reuid={user}", "--clear-groups", f"--inh-caps={capabilities}", f"--ambient-caps={capabilities}"]
    # Not pytest's own folder: nobody but its owner can enter that.
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(config.parent, folder, dirs_exist_ok=True)
        os.chown(folder, user, user)
        done = subprocess.run(
            [*become, "bash", "-c", f'ulimit -u {limit}; exec "$@"', "bash", *RUN, f"{folder}/{config.name}"],
            capture_output=True, text=True, timeout=280, env=PLAIN | {"HOME": folder},
        )  # fmt: skip
    assert done.returncode == 71, done.stderr
    assert re.search(told, done.stderr)


@pytest.mark.parametrize(("ports", "code"), [(2, 69), (14, 69), (18, 0)])
def test_ports_are_asked_for_before_processes_wait_for_them(config: Path, ports: int, code: int) -> None:
    loopback = "import fcntl, socket, struct; fcntl.ioctl(socket.socket(), 0x8914, struct.pack('16sH14x', b'lo', 0x41))"
    there = f"echo 40000 {40000 + ports - 1} > /proc/sys/net/ipv4/ip_local_port_range"
    done = on_a_machine(f'{sys.executable} -c "{loopback}" && {there}', config, "--net")
    assert done.returncode == code, done.stderr
    assert (f"take 16 ports of 127.0.0.1, and after {ports} there was none left" in done.stderr) == bool(code)


@pytest.mark.parametrize(("limit", "code"), [("-n 32", 71), ("-Sn 32", 0)])
def test_open_files_are_asked_for_as_far_as_granted_and_otherwise_named(config: Path, limit: str, code: int) -> None:
    done = subprocess.run(
        ["bash", "-c", f'ulimit {limit}; exec "$@"', "bash", *RUN, str(config)], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == code, done.stderr
    assert ("processes take 54 open files and connections, this process may have 32" in done.stderr) == bool(code)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("distributed: [unclosed", "Dask cannot read its settings"),
        ("just text", "Dask cannot read its settings"),
        ("distributed: {worker: {memory: {terminate: a lot}}}", "expected a share of the memory or false (found a lot)"),
        ("distributed: {worker: {preload: [no_such_module]}}", "No module named 'no_such_module'"),
    ],
)  # fmt: skip
def test_settings_of_dasks_that_its_workers_cannot_use_are_named(config: Path, tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "mine.yaml").write_text(text)
    done = subprocess.run(
        [*RUN, str(config)], capture_output=True, text=True, timeout=280, env=PLAIN | {"DASK_CONFIG": str(tmp_path / "dask")}
    )
    assert done.returncode == 78, done.stderr
    assert words in done.stderr
    assert "DASK_…" in done.stderr


def test_a_setting_that_forbids_compiled_code_is_named(config: Path) -> None:
    done = subprocess.run([*RUN, str(config)], capture_output=True, text=True, env=PLAIN | {"NUMBA_DISABLE_JIT": "1"})
    assert done.returncode == 78
    assert "NUMBA_DISABLE_JIT is set" in done.stderr


@pytest.mark.parametrize("n_workers", ["2", "null"])
def test_a_limit_of_files_is_named_at_the_first_one_that_is_too_large_and_without_it_the_run_continues(
    config: Path, n_workers: str
) -> None:
    def limited(kilobytes: str, *settings: str) -> subprocess.CompletedProcess[str]:
        command = ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *RUN, str(config), f"cluster.n_workers={n_workers}"]
        return subprocess.run([*command, *settings], capture_output=True, text=True, timeout=280)

    done = limited("1")
    assert done.returncode == 74, done.stderr
    assert "tokens.parquet: no file may be larger than 1,024 bytes here; raise the limit (ulimit -f)" in done.stderr
    done = limited("100", "train.vector_size=100")
    assert done.returncode == 71, done.stderr
    assert "may write files of up to 102 kB, but a matrix has 247 kB" in done.stderr
    assert "interrupted" not in done.stderr
    done = limited("unlimited", "train.vector_size=100")
    assert done.returncode == 0, done.stderr
