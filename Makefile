# The verbs of this project. On a fresh Debian machine `make demo` and `make test` do everything.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV_VERSION := 0.13.9
PACKAGES := concentrator board plc
ARGS ?=
export UV_PYTHON := $(CURDIR)/$(BIN)/python
export UV_NO_PROGRESS := 1
unexport VIRTUAL_ENV

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast check lint type format messages bench screenshots install lock clean setup setup-test system-packages

help: ## Show the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(VENV)/.run ## Run the main job on an embedded simulated substation, e.g. make demo ARGS="--once --json"
	@$(BIN)/concentrator demo $(ARGS)

test: setup-test ## Set up everything and run every test
	@$(BIN)/pytest -n 3 --dist worksteal $(ARGS)

check: $(VENV)/.dev lint type ## Static checks: ruff, pyright strict, import-linter, the MicroPython subset, codespell

lint: $(VENV)/.dev
	@$(BIN)/ruff check $(PACKAGES) tests benchmarks
	@$(BIN)/ruff format --check $(PACKAGES) tests benchmarks
	@$(BIN)/lint-imports --no-cache
	@$(BIN)/python tests/tools/micropython_subset.py
	@$(BIN)/codespell $(PACKAGES) tests docs systemd README.md CHANGELOG.md

type: $(VENV)/.dev
	@PYRIGHT_PYTHON_IGNORE_WARNINGS=1 $(BIN)/pyright

format: $(VENV)/.dev ## Format and mend what can be mended
	@$(BIN)/ruff check --fix-only $(PACKAGES) tests benchmarks || true
	@$(BIN)/ruff format $(PACKAGES) tests benchmarks

messages: $(VENV)/.dev ## Bring the page's message catalogues into step, and tell what is to be translated
	@$(BIN)/python tests/tools/messages.py

bench: $(VENV)/.peers ## Speed as ratios against peers and limits in the same run
	@for file in benchmarks/*.py; do $(BIN)/python $$file $(ARGS) || exit 1; done

screenshots: setup-test ## Make the README's picture of the diagnostics page
	@$(BIN)/python tests/tools/screenshots.py

install: $(VENV)/bin/uv ## Install into DESTDIR (default /) under /opt/concentrator, with the systemd units
	@PYTHON="$(PYTHON)" UV="$(CURDIR)/$(BIN)/uv" systemd/install.sh "$(DESTDIR)"

setup: $(VENV)/.run
setup-test: system-packages $(VENV)/.peers .node/.installed

system-packages:
	@tests/tools/system-packages.sh >&2

# Set-up prints to standard error: `make demo ARGS="--json"` owns standard output.
$(VENV)/bin/uv:
	@echo "setting up $(VENV) ..." >&2
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: set PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) >&2
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION) >&2

$(VENV)/.run: .requirements/run.txt .requirements/demo.txt pyproject.toml | $(VENV)/bin/uv
	@$(BIN)/uv pip install --quiet --require-hashes -r .requirements/run.txt -r .requirements/demo.txt >&2
	@$(BIN)/uv pip install --quiet --no-deps --editable . >&2
	@touch $@

$(VENV)/.dev: .requirements/dev.txt $(VENV)/.run
	@$(BIN)/uv pip install --quiet --require-hashes -r .requirements/dev.txt >&2
	@touch $@

$(VENV)/.peers: .requirements/peers.txt $(VENV)/.dev
	@$(BIN)/uv pip install --quiet --require-hashes -r .requirements/peers.txt >&2
	@touch $@

# Real MicroPython, and axe-core for the page's accessibility test.
.node/.installed: tests/tools/package.json
	@mkdir -p .node && cp tests/tools/package.json .node/
	@cd .node && npm install --silent --no-audit --no-fund --no-package-lock >&2
	@touch $@

LOCK := $(BIN)/uv pip compile --quiet --universal --generate-hashes --no-annotate --no-header --python-version 3.11

lock: $(VENV)/bin/uv ## Pin every dependency anew, with hashes
	@$(LOCK) pyproject.toml -o .requirements/run.txt
	@$(LOCK) pyproject.toml --extra demo -c .requirements/run.txt -o .requirements/demo.txt
	@$(LOCK) --group dev -c .requirements/demo.txt -o .requirements/dev.txt
	@$(LOCK) --group peers -c .requirements/demo.txt -c .requirements/dev.txt -o .requirements/peers.txt

clean: ## Remove what was built
	@rm -rf $(VENV) .node build dist test-output .hypothesis
