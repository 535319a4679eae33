# `make demo` and `make test` do all the set-up themselves; nothing is installed outside this folder.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
WARM := $(VENV)/.warm
# Where PYTHONDONTWRITEBYTECODE is set, every worker process would spend 4 s compiling what it imports. So the packages that
# workers import are compiled at installation (pip would compile all packages, on one core), the others when they are first used.
COMPILED := numba llvmlite numpy dask distributed pyarrow tornado msgpack cloudpickle fsspec pydantic yaml click jinja2 packaging toolz zict
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help configuration demo test test-all test-fast test-core warm collect coverage chaos crashes refreshes answers buckets shared deployment image fuzz audit notebook lint format lock clean
.DEFAULT_GOAL := help

help:
	@echo "make demo       train on the docstrings of the installed Python and show what was learned"
	@echo "make test       the tests; the longest ones take turns, day by day"
	@echo "make test-all   all tests, with all cases of the sweeps that make test samples; half an hour or more"
	@echo "make test-fast  without the slow ones"
	@echo "make coverage   how much of w2v_core its own tests run"
	@echo "make chaos      kill everything everywhere and compare the bits"
	@echo "make crashes    kill a writer at every system call (needs strace)"
	@echo "make fuzz       seeded mutations of everything that is read, for FUZZ_SECONDS"
	@echo "make audit      known vulnerabilities of what requirements.lock installs"
	@echo "make tracking   runs beside a tracking server that is absent, slow, full, refusing, gone: what they cost"
	@echo "make notebook   train in a kernel of Jupyter's: bar, interrupt, example"
	@echo "make refreshes  change a corpus at random and compare every refresh with a rebuild"
	@echo "make answers    fail a run in every way and ask w2v query after each"
	@echo "make shared     two runs at once on one scheduler, twenty times"
	@echo "make deployment image, compose, systemd, Kubernetes and SLURM files, SSH, PostgreSQL, several hosts, as far as they go here"
	@echo "make image      the container image (Docker), or its steps without"
	@echo "make buckets    kill a run whose workdir is in a bucket at every place"
	@echo "make lint       ruff and mypy"
	@echo "make configuration  write infra/configuration.md anew"
	@echo "make lock       resolve requirements.lock again"

# The lock carries hashes and no addresses; pip refuses anything that differs. It works on one core, mostly for itself: two at a time
# take half as long, and the third, which finds everything there, is the check that nothing is missing.
PIP = $(BIN)/python -m pip install --quiet --quiet --no-compile --disable-pip-version-check --no-input
$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + "; set PYTHON=")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) (a few minutes the first time)"
	@awk '/^[^ ]/ {number++} {print > ("$(VENV)/half" number % 2 ".lock")}' requirements.lock
	@$(PIP) --require-hashes --no-deps -r $(VENV)/half0.lock & $(PIP) --require-hashes --no-deps -r $(VENV)/half1.lock; \
		wait $$!; $(PIP) --require-hashes --no-deps -r requirements.lock
	@$(PIP) --no-build-isolation --no-deps -e .
	@touch $@

# A first run on a few words compiles the kernels and all that a run imports, so that later runs start at once. The linters need
# none of this: .ci/run has both done at the same time.
$(WARM): $(READY)
	@cd $(VENV)/lib/python3*/site-packages && ../../../bin/python -m compileall -q -j 0 -x '[/\\]tests?[/\\]' $(COMPILED) || true
	@mkdir -p $(VENV)/first && printf 'one two three four fivé six\n%.0s' $$(seq 500) > $(VENV)/first/words.txt
	@printf 'corpus: {inputs: [words.txt]}\nshards: {sample: 0}\n' > $(VENV)/first/run.yaml
	@for lanes in 1 2; do $(BIN)/python -c 'import subprocess, sys; subprocess.run(sys.argv[1:], capture_output=True, timeout=200)' \
		$(BIN)/w2v run --quiet $(VENV)/first/run.yaml train.lanes=$$lanes 2> /dev/null || true; done
	@rm -rf $(VENV)/first
	@touch $@

warm: $(WARM)

# Compiles the tests and what they import, once instead of in every process of pytest.
collect: $(READY)
	@$(BIN)/python -m pytest --collect-only -q > /dev/null

demo: $(WARM)
	$(BIN)/w2v run configs/demo.yaml

# Four at a time: most of the tests wait for processes of their own (infra/decisions/0008-tests-at-a-time.md).
test: $(WARM)
	W2V_TURNS=1 $(BIN)/python -m pytest -n 4 --dist worksteal

# Every case of every sweep of which `make test` takes a sample, and every test that takes turns there.
test-all: $(WARM)
	W2V_ALL=1 $(BIN)/python -m pytest -n 4 --dist worksteal

test-fast: $(WARM)
	$(BIN)/python -m pytest -m "not slow" tests/core tests/pipeline

test-core: $(WARM)
	$(BIN)/python -m pytest tests/core

# The lines and branches of w2v_core that tests/core runs. Compiled functions cannot be traced and are left out (pyproject.toml
# says which); the code that generates their instructions is Python and counts, so Numba compiles it anew in a separate folder.
coverage: $(WARM)
	rm -rf $(VENV)/coverage && mkdir -p $(VENV)/coverage
	NUMBA_CACHE_DIR=$(VENV)/coverage/numba COVERAGE_FILE=$(VENV)/coverage/data \
		$(BIN)/python -m coverage run --source=w2v_core -m pytest -q tests/core --timeout 600
	COVERAGE_FILE=$(VENV)/coverage/data $(BIN)/python -m coverage report --skip-covered --show-missing --fail-under=95

# Every kill point of every role and 20 runs hit at random, not the sample that `make test` takes. Seven minutes on two cores.
chaos: $(WARM)
	$(BIN)/python -m tests.cluster.chaos

# Every system call, not the sample that `make test` takes: a minute and a half.
crashes: $(WARM)
	W2V_ALL=1 $(BIN)/python -m pytest -q tests/pipeline/test_crashing_writes.py

# A whole run in each of five bad states of MLflow's server (one needs root), beside one without tracking.
tracking: $(WARM)
	$(BIN)/python -m tests.cluster.bad_tracking

# Fifty sequences of changes to a corpus, with each refresh compared with a clean build, and every place where one can be killed.
refreshes: $(WARM)
	W2V_ALL=1 $(BIN)/python -m pytest -q -n 2 tests/pipeline/test_refresh.py

# After each of thirty-three ways to fail, to stop early and to be killed, `w2v query` says what it said before, byte for byte.
answers: $(WARM)
	W2V_ALL=1 $(BIN)/python -m pytest -q -n 2 tests/pipeline/test_latest.py

# Two runs and a stranger on one scheduler, ten times with one thread per worker and ten times with four: forty digests.
# SHARED_SEED chooses the corpora; each line names its seeds.
SHARED_SEED ?= 1
shared: $(WARM)
	$(BIN)/python -W ignore -m tests.cluster.shared --times 10 --seed $(SHARED_SEED)

# All deployment files: the image's steps in an empty environment, all containers' commands, docker-compose, sshd, SLURM jobs that all
# reach their time limit, a host that is cut off. All but the last took seven minutes on two cores.
deployment: $(WARM)
	W2V_ALL=1 W2V_INSTALL=1 $(BIN)/python -m pytest -q tests/infra tests/cluster/test_slurm.py tests/cluster/test_ssh.py tests/cluster/test_postgres.py \
		tests/cluster/test_namespaces.py

# The real image if a Docker daemon answers, else its steps.
image: $(WARM)
	@if docker info > /dev/null 2>&1; then docker build -f infra/image/Dockerfile -t w2v .; \
	else W2V_ALL=1 $(BIN)/python -m pytest -q tests/infra/test_image.py; fi

# A workdir in a bucket, with driver and workers killed at every place, not only at the few that `make test` takes: 17 minutes on two cores
# beside other work.
buckets: $(WARM)
	W2V_ALL=1 $(BIN)/python -m pytest -q tests/storage

# One file of every kind in a workdir, damaged in every way; then seeded mutations of all that is read, of which `make test`
# takes a sample with another seed. A failure is named by kind, seed and case; --only runs one again.
FUZZ_SECONDS ?= 300
FUZZ_SEED ?= 19
fuzz: $(WARM)
	$(BIN)/python -W ignore -m tests.security.tampering
	$(BIN)/python -W ignore -m tests.security.fuzz --seconds $(FUZZ_SECONDS) --seed $(FUZZ_SEED)

# pip-audit has an environment of its own, because its packages are not part of what it audits. Advisories change daily and no
# package contains them (the last one that did is from 2021), so without the service there is no verdict; exit code 69 says so.
audit: $(VENV)/audit/.ready
	@$(VENV)/audit/bin/pip-audit --requirement requirements.lock --disable-pip --strict --progress-spinner off $(AUDIT_OPTIONS) \
		> $(VENV)/audit/said 2>&1; code=$$?; cat $(VENV)/audit/said; \
	if grep -qE 'ConnectionError|ConnectTimeout|Max retries|Service error|Name or service|could not be audited' $(VENV)/audit/said; then \
		echo 'no verdict: the service that knows advisories cannot be reached from here.'; \
		echo 'Another one: make audit AUDIT_OPTIONS="-s osv", or a mirror of it: AUDIT_OPTIONS="-s osv --osv-url URL"'; exit 69; \
	fi; exit $$code

$(VENV)/audit/.ready:
	$(PYTHON) -m venv $(VENV)/audit
	$(VENV)/audit/bin/python -m pip install --quiet --disable-pip-version-check --no-input 'pip-audit>=2.9,<3'
	@touch $@

# Jupyter's kernel has an environment of its own, which sees the packages of the other, because nothing else needs it.
notebook: $(WARM) $(VENV)/notebook/.ready
	$(VENV)/notebook/bin/python -m pytest tests/pipeline/test_notebook.py

$(VENV)/notebook/.ready: $(READY)
	$(PYTHON) -m venv $(VENV)/notebook
	@cd $(VENV) && for here in lib/python3*/site-packages; do \
		echo "import site; site.addsitedir('$$PWD/$$here')" > notebook/$$here/beside.pth; done
	$(VENV)/notebook/bin/python -m pip install --quiet --disable-pip-version-check --no-input 'ipykernel>=6.29,<8'
	@touch $@

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

configuration: $(READY)
	$(BIN)/python infra/configuration.py

# Needs uv (https://docs.astral.sh/uv), because it resolves for all platforms at once. The image's two locks have the same
# versions as the project's.
RESOLVE := uv pip compile --universal --python-version 3.11 --generate-hashes --no-annotate --no-header
lock:
	$(RESOLVE) pyproject.toml --extra dev -o requirements.lock
	sed -n 's/^requires = \[\(.*\)\]/\1/p' pyproject.toml | tr -d '"' > $(VENV)/build.in
	$(RESOLVE) pyproject.toml $(VENV)/build.in --extra server -c requirements.lock -o infra/image/requirements.lock
	$(RESOLVE) pyproject.toml $(VENV)/build.in --extra server --extra gpu13 -c requirements.lock -o infra/image/requirements-gpu.lock

clean:
	rm -rf $(VENV) runs
