# One way to do each thing; developers and CI use the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# uv installs in seconds what takes pip minutes. If it cannot reach a package index that pip can reach, pip is used.
INSTALL = install() { $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python "$$@" \
	|| { echo 'uv failed; trying pip, which takes longer' >&2; $(PIP) install "$$@"; }; }; install
NODE := tests/node
# The build that the engines are tested with. If pip's indexes do not have it, set PIP_EXTRA_INDEX_URL to PyTorch's own
# index (pytorch.org/get-started).
TORCH ?= 2.13.0+cpu
# Otherwise each test process would compile every module again.
unexport PYTHONDONTWRITEBYTECODE
# The meaning of the markers: tests/support/tiers.py.
QUICK := not (system or corpus or engines or slow or timing)

.PHONY: run setup test test-rest test-all coverage torch ray test-ray check audit sbom format bench bench-worker demo chaos fuzz \
	docs lock clean help

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run  ## start the gateway on 127.0.0.1:8000 with the embedded worker
	$(BIN)/darkroom serve

setup: $(VENV)/.dev $(NODE)/node_modules/.done  ## install everything for development, in .venv

test: $(VENV)/.test  ## run the tests that every change needs, in a few minutes
	$(BIN)/pytest -m "$(QUICK)"

test-rest: $(VENV)/.dev $(NODE)/node_modules/.done  ## run the tests that `make test` leaves out: kills, databases, Node, the corpus
	@# Three workers: most of these tests start processes of their own.
	$(BIN)/pytest -m "not ($(QUICK)) and not timing" -n 3 tests
	$(BIN)/pytest -m timing -n 0 tests

test-all: test  ## run every test
	@# The Ray tests mostly wait: they run in parallel with the first of the rest, long before the timing tests.
	$(MAKE) -j2 test-rest test-ray

coverage: $(VENV)/.dev $(NODE)/node_modules/.done  ## run every test once, and report which lines they cover
	$(BIN)/pytest --cov=gateway --cov=providers --cov=normalization --cov-report=term:skip-covered tests

torch: $(VENV)/.torch  ## install the CPU build of torch and the engines' libraries, for make test-rest

ray: $(VENV)/.ray  ## install Ray Serve, for make test-ray

test-ray: $(VENV)/.dev  ## test a worker on a local Ray cluster: parallel, killed and drained replicas
	@if $(BIN)/python -c 'import ray' 2>/dev/null; then $(BIN)/pytest -n 0 tests/cluster; \
		else echo '*** NOT TESTED: providers/worker/cluster.py, as ray is not installed. make ray installs it. ***'; fi

check: $(VENV)/.dev  ## check format, lint, types, Dockerfile, config and known vulnerabilities
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile deploy/worker/Dockerfile
	$(BIN)/darkroom check --quiet
	@# Without access to a vulnerability database all the rest can still be checked; `make audit` fails in that case.
	@$(BIN)/python -m tests.audit requirements.lock || { [ $$? = 2 ] \
		&& echo '*** NOT AUDITED: the dependencies were not checked for known vulnerabilities. ***'; }

audit: $(VENV)/.dev  ## check the dependencies for known vulnerabilities; an error if that is not possible
	$(BIN)/python -m tests.audit requirements.lock

sbom: $(BIN)/uv  ## write the dependencies, with hashes, as CycloneDX JSON: dist/sbom.json
	mkdir -p dist
	$(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.lock \
		--pyproject pyproject.toml --output-reproducible -o dist/sbom.json

format: $(VENV)/.dev  ## format the code and fix lint errors
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## measure what a call costs, as tables
	$(BIN)/python -m tests.bench

bench-worker: $(VENV)/.torch  ## measure what an image costs on this machine's GPUs, or its CPU
	$(BIN)/python -m tests.bench.worker

demo: $(VENV)/.run  ## start the gateway with four simulated providers
	$(BIN)/python -m tests.demo

chaos: $(VENV)/.dev  ## make hundreds of calls under faults and kills, and account for every purchase
	$(BIN)/python -m tests.chaos

fuzz: $(VENV)/.dev  ## search for inputs that break the parsers of untrusted data: make fuzz SECONDS=30 (for each)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),30)

docs: $(VENV)/.dev  ## generate docs/models.md
	$(BIN)/darkroom check --markdown > docs/models.md

lock: $(VENV)/.dev  ## resolve the dependencies again and write the lock files
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--group build --extra postgres --extra redis pyproject.toml -o requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--group build --group dev --extra postgres --extra redis pyproject.toml -o requirements-dev.lock -c requirements.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--group build --group test pyproject.toml -o requirements-test.lock -c requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
		--group pyproject.toml:installer -o requirements-installer.lock -c requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--no-emit-package torch --no-emit-package triton --group engines --extra diffusion pyproject.toml \
		-o requirements-engines.lock -c requirements-dev.lock
	$(BIN)/uv pip compile -q --universal --python-version 3.11 --generate-hashes --no-annotate --no-header --upgrade \
		--extra ray pyproject.toml -o requirements-ray.lock -c requirements-dev.lock

clean:  ## remove everything that the targets created
	rm -rf $(VENV) $(NODE)/node_modules .mypy_cache .ruff_cache .pytest_cache .hypothesis

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Darkroom needs Python 3.11 or newer; say which with: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(BIN)/uv: requirements-installer.lock | $(BIN)/python
	$(PIP) install --require-hashes -r requirements-installer.lock
	@touch $@

$(VENV)/.run: requirements.lock pyproject.toml | $(BIN)/uv
	$(INSTALL) --require-hashes -r requirements.lock
	$(INSTALL) --no-build-isolation --no-deps -e .
	@touch $@

$(VENV)/.test: requirements-test.lock $(VENV)/.run
	$(INSTALL) --require-hashes -r requirements-test.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.test
	$(INSTALL) --require-hashes -r requirements-dev.lock
	@touch $@

$(VENV)/.torch: requirements-engines.lock $(VENV)/.dev
	$(PIP) install "torch==$(TORCH)"
	$(INSTALL) --no-deps --require-hashes -r requirements-engines.lock
	@touch $@

$(VENV)/.ray: requirements-ray.lock $(VENV)/.dev
	$(INSTALL) --require-hashes -r requirements-ray.lock
	@touch $@

$(NODE)/node_modules/.done: $(NODE)/package-lock.json $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" npm --prefix $(NODE) ci --silent --no-audit --no-fund
	@touch $@
