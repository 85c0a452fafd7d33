# Chores of pman; `make help` lists them. Needs make and Python 3.11 or later, nothing else.

PYTHON ?= python3
VENV ?= .venv
PORT ?= 5010
RUNFLAGS ?=
TESTFLAGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input
RUN_STAMP := $(VENV)/.installed
DEV_STAMP := $(VENV)/.installed-dev

TRY := {"payload": {"action": "run", "meta": {"cmd": "echo hello", "auid": "me", "jid": "first"}}}

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: run test check format-check lint types layers docs format bench clean help

run: $(RUN_STAMP) ## Start pman on 127.0.0.1:5010 (PORT=, RUNFLAGS=)
	@printf '%s\n' "Try: curl -s http://127.0.0.1:$(PORT)/api/v1/cmd -d '$(subst ",\",$(TRY))'"
	@exec $(BIN)/pman --ip 127.0.0.1 --port $(PORT) --rawmode 1 --http $(RUNFLAGS)

test: $(DEV_STAMP) ## Run all tests (TESTFLAGS=)
	@$(BIN)/python -m pytest $(TESTFLAGS)

check: format-check lint types layers test docs ## Format, lint, types, layers, tests, docs; stops at the first failure

format-check: $(DEV_STAMP) ## Say which files are not formatted
	@$(BIN)/ruff format --check .

lint: $(DEV_STAMP) ## Look for mistakes
	@$(BIN)/ruff check .

types: $(DEV_STAMP) ## Check the types of pman/
	@$(BIN)/mypy

layers: $(DEV_STAMP) ## Check that imports go down the picture of docs/architecture.rst only
	@$(BIN)/lint-imports

docs: $(DEV_STAMP) ## Build docs/_build/html; warnings are errors
	@$(BIN)/python -m sphinx -q -W -n --keep-going -b html docs docs/_build/html

format: $(DEV_STAMP) ## Format the code, sort the imports
	@$(BIN)/ruff check -q --select I --fix .
	@$(BIN)/ruff format .

bench: $(DEV_STAMP) ## Run every benchmark
	@set -e; for bench in benchmarks/bench_*.py; do echo "== $$bench"; $(BIN)/python "$$bench"; done

clean: ## Remove all that these commands have made, the virtual environment included
	rm -rf $(VENV) build dist docs/_build *.egg-info
	rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp says which setup.py was installed last; the package itself is linked, not copied.

define INSTALL
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "pman needs Python 3.11 or later; PYTHON=$(PYTHON) is: $$($(PYTHON) --version 2>&1)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	    echo "$(PYTHON) cannot make virtual environments; install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	@test -x $(BIN)/pip || { rm -f $(RUN_STAMP) $(DEV_STAMP); $(PYTHON) -m venv $(VENV); }
endef

$(RUN_STAMP): setup.py
	$(INSTALL)
	@echo "Installing pman into $(VENV) ..."
	@$(PIP) install -q -e .
	@touch $@

$(DEV_STAMP): setup.py
	$(INSTALL)
	@echo "Installing pman and its development tools into $(VENV) ..."
	@$(PIP) install -q -e '.[dev]'
	@touch $(RUN_STAMP) $@
