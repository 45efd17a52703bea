# What a developer runs. Each target makes .venv and installs what it needs by itself.

PYTHON ?= python3
BIN := .venv/bin
TORCH := $(shell grep '^torch==' constraints.txt)

# Every pip below keeps to these versions; the second name is for the builds that newer pips isolate.
export PIP_CONSTRAINT := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: help demo test check bench docs clean

help: ## list these targets
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile | expand -t 16

demo: .venv/base.installed ## train a small language model and let it write
	$(BIN)/throughtime demo

test: .venv/dev.installed ## run the tests, all but the slow ones
	$(BIN)/pytest --numprocesses auto --maxprocesses 8 --dist worksteal

check: .venv/dev.installed ## lint, format, types, import layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

bench: .venv/dev.installed ## run every benchmark but long_memory, which trains for an hour on data of your own
	$(BIN)/throughtime bench --output benchmarks
	@set -e; for script in $(filter-out %/long_memory.py,$(wildcard benchmarks/*.py)); do echo "$$script"; $(BIN)/python "$$script"; done

docs: .venv/dev.installed ## build the documentation into site/
	$(BIN)/mkdocs build --strict

clean: ## delete what the tools left, but not .venv
	rm -rf site build dist .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find . -path ./.venv -prune -o -name __pycache__ -prune -exec rm -rf {} +

# A file per step of the installation, so that a step is repeated only when what it rests on is newer.
.venv/python.installed:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo 'ThroughTime needs Python 3.11 or newer, and "$(PYTHON)" is not: make PYTHON=/path/to/python3.11' >&2; exit 1; }
	$(PYTHON) -m venv .venv
	@touch $@

# torch comes first and by its exact version: a range lets pip fetch another, much larger build.
.venv/torch.installed: .venv/python.installed constraints.txt
	$(BIN)/pip install $(TORCH)
	@touch $@

.venv/base.installed: .venv/torch.installed pyproject.toml
	$(BIN)/pip install -e .
	@touch $@

.venv/dev.installed: .venv/torch.installed pyproject.toml
	$(BIN)/pip install -e '.[dev]'
	@touch .venv/base.installed $@
