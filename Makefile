# One command for each thing that one does here; `make help` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

# The newest Python of the versions that constraints.txt is made for, else any that is new enough.
define FIND_PYTHON
for name in $${PYTHON:-python3.13 python3.12 python3.11 python3 python}; do \
	if command -v "$$name" >/dev/null 2>&1 \
	&& "$$name" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo "$$name"; exit 0; fi; \
done; \
echo "tidepool needs Python 3.11 or newer with its venv module; none was found." >&2; \
echo "Install one (Debian: apt-get install python3 python3-venv) or name it: make PYTHON=/path/to/python3 run" >&2; \
exit 1
endef

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | while IFS=$$'\t' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

.PHONY: run
run: $(VENV)/.runtime ## start the gateway on 127.0.0.1:8000 with its own Postgres; Ctrl-C stops both
	@exec $(BIN)/tidepool dev $(ARGS)

# The whole suite runs in a process more than there are cores (tests/conftest.py), each with a Postgres of its own; some
# tests are done before a second process has begun. A module stays whole, for its tests may share what is slow to make;
# modules come by their names, so that the many short ones of tests/unit are last, and all end together.
EVERY_CORE := --numprocesses=auto --dist=loadscope --no-loadscope-reorder

# What is compiled is kept, whatever the environment says: a run starts dozens of processes, and each would compile it all.
test: export PYTHONDONTWRITEBYTECODE :=

.PHONY: test
test: $(VENV)/.dev ## run the tests; ARGS="tests/unit -k cursor" picks some
	@$(BIN)/python -m pytest $(or $(ARGS),$(EVERY_CORE))

.PHONY: check
check: $(VENV)/.dev ## format, lint, strict types, and which folder imports which
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

.PHONY: format
format: $(VENV)/.dev ## put every file in the one format, and fix what can be fixed by itself
	@$(BIN)/ruff check --fix-only --quiet .
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.dev ## measure; wants the machine for itself
	@$(BIN)/python -m tests.benchmarks $(ARGS)

.PHONY: migration
migration: $(VENV)/.dev ## write a migration from what the declarations now say: NAME="add colour"
	@test -n "$(NAME)" || { echo 'name it: make migration NAME="add colour to image"' >&2; exit 2; }
	@$(BIN)/tidepool migration "$(NAME)"
	@$(BIN)/ruff format --quiet primary/migrations/versions

.PHONY: clean
clean: ## remove the environment and every cache; data/ stays
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build ./*.egg-info
	find primary replica gateway tests -name __pycache__ -type d -prune -exec rm -rf {} +

# The stamps: a changed pyproject.toml or constraints.txt installs again.
$(VENV)/bin/python:
	@python=$$($(FIND_PYTHON)) || exit 1; echo "creating $(VENV) with $$($$python --version)"; $$python -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what tidepool runs on"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@echo "installing what tidepool runs on and is tested with"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.runtime
