# One way to do each thing; people and CI call the same targets.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip --disable-pip-version-check --quiet
# uv installs in seconds what takes pip minutes. Where it cannot reach a package index that pip can, pip does it.
INSTALL = install() { $(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python "$$@" \
	|| { echo 'uv failed; trying pip, which takes longer' >&2; $(PIP) install "$$@"; }; }; install
NODE := tests/node
# The build that the engines are tested with. Where pip's indexes do not have it, PyTorch's own does:
# PIP_EXTRA_INDEX_URL names it (pytorch.org/get-started).
TORCH ?= 2.13.0+cpu
# Each process of the tests would compile every module anew.
unexport PYTHONDONTWRITEBYTECODE
# What the markers mean: tests/support/tiers.py.
QUICK := not (system or corpus or engines or slow or timing)

.PHONY: run setup test test-rest test-all coverage torch ray test-ray check audit sbom format bench bench-worker demo chaos fuzz \
	docs lock clean help

help:  ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/.run  ## serve on 127.0.0.1:8000 with the embedded worker
	$(BIN)/darkroom serve

setup: $(VENV)/.dev $(NODE)/node_modules/.done  ## everything for working on Darkroom, in .venv

test: $(VENV)/.test  ## the tests that take minutes: what a change needs
	$(BIN)/pytest -m "$(QUICK)"

test-rest: $(VENV)/.dev $(NODE)/node_modules/.done  ## what `make test` leaves out: kills, databases, Node, the corpus
	@# Three at a time: most of them start processes of their own.
	$(BIN)/pytest -m "not ($(QUICK)) and not timing" -n 3 tests
	$(BIN)/pytest -m timing -n 0 tests

test-all: test  ## every test
	@# A Ray cluster mostly waits: its tests run beside the first of the rest, long before those that measure time.
	$(MAKE) -j2 test-rest test-ray

coverage: $(VENV)/.dev $(NODE)/node_modules/.done  ## every test once, and which lines the tests reach
	$(BIN)/pytest --cov=gateway --cov=providers --cov=normalization --cov-report=term:skip-covered tests

torch: $(VENV)/.torch  ## the CPU build of torch and the engines' libraries: make test then tests those too

ray: $(VENV)/.ray  ## Ray Serve, for make test-ray

test-ray: $(VENV)/.dev  ## a worker over a local Ray cluster: replicas side by side, killed, drained
	@if $(BIN)/python -c 'import ray' 2>/dev/null; then $(BIN)/pytest -n 0 tests/cluster; \
		else echo '*** NOT TESTED: providers/worker/cluster.py, as ray is not installed. make ray installs it. ***'; fi

check: $(VENV)/.dev  ## format, lint, types, Dockerfile, config, known holes
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile deploy/worker/Dockerfile
	$(BIN)/darkroom check --quiet
	@# A machine that reaches no database of known holes can check all the rest; `make audit` is strict about it.
	@$(BIN)/python -m tests.audit requirements.lock || { [ $$? = 2 ] \
		&& echo '*** NOT AUDITED: nobody looked for known holes in what Darkroom depends on. ***'; }

audit: $(VENV)/.dev  ## known holes in what Darkroom depends on; an error where nobody could look
	$(BIN)/python -m tests.audit requirements.lock

sbom: $(BIN)/uv  ## what Darkroom depends on, with hashes, as CycloneDX JSON: dist/sbom.json
	mkdir -p dist
	$(BIN)/uv tool run --from cyclonedx-bom==7.5.0 cyclonedx-py requirements requirements.lock \
		--pyproject pyproject.toml --output-reproducible -o dist/sbom.json

format: $(VENV)/.dev  ## rewrite to the house style
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.dev  ## what a call costs, as a table
	$(BIN)/python -m tests.bench

bench-worker: $(VENV)/.torch  ## what a picture costs on this machine's cards, or its CPU
	$(BIN)/python -m tests.bench.worker

demo: $(VENV)/.run  ## the gateway before four simulated providers
	$(BIN)/python -m tests.demo

chaos: $(VENV)/.dev  ## hundreds of calls under faults and kills, and the account of what was bought
	$(BIN)/python -m tests.chaos

fuzz: $(VENV)/.dev  ## look for inputs that break the readers of strangers' bytes: make fuzz SECONDS=30 (for each)
	$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),30)

docs: $(VENV)/.dev  ## write the generated pages
	$(BIN)/darkroom check --markdown > docs/models.md

lock: $(VENV)/.dev  ## resolve the dependencies anew into the lock files
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

clean:  ## remove everything that the targets made
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
