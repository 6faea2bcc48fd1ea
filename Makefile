# `make` lists the targets. PYTHON=python3.12 chooses the interpreter for a new .venv, ARGS="..." goes to the command,
# TORCH_INDEX=<address of a wheel index> is searched besides pip's own (README: torch without CUDA on Linux).

PYTHON ?= python3
ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
# The directory belongs to the key: a virtual environment does not survive being moved.
STAMP := $(VENV)/.stamp-$(shell { pwd; cat pyproject.toml constraints.txt; } | cksum | tr ' ' '-')
CHOSEN := $(filter --config --config=% --resume --resume=% --checkpoint --checkpoint=%,$(ARGS))
# pytest's status 5 says that nothing was selected, which is no failure.
PYTEST = status=0; $(BIN)/python -m pytest $(ARGS) -m

.PHONY: help setup train test test-slow test-long test-browser lint format clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(STAMP)  ## build .venv with the tested versions of everything (once; two minutes)

$(STAMP):
	@PYTHON="$(PYTHON)" scripts/setup.sh $(VENV) $(STAMP)

train: $(STAMP)  ## train configs/quickstart.yaml; ARGS="--config configs/humanoid.yaml" for another
	$(BIN)/python launch.py train --report $(if $(CHOSEN),,--config configs/quickstart.yaml) $(ARGS)

test: $(STAMP)  ## run the tests, quick ones first (ARGS="-k gae" for some)
	@$(PYTEST) "not slow and not long and not ray and not browser" -n auto --dist worksteal || status=$$?; [ $$status -eq 0 ] || [ $$status -eq 5 ]
	@$(PYTEST) "ray and not slow and not long and not browser" || status=$$?; [ $$status -eq 0 ] || [ $$status -eq 5 ]

test-slow: $(STAMP)  ## run the tests that train for minutes
	@$(PYTEST) "slow and not long and not browser" || status=$$?; [ $$status -eq 0 ] || [ $$status -eq 5 ]

test-long: $(STAMP)  ## run those that are left, minutes each, which .ci/run leaves out
	@$(PYTEST) "long" || status=$$?; [ $$status -eq 0 ] || [ $$status -eq 5 ]

test-browser: $(STAMP)  ## look at reports in headless Chromium (on Debian: apt install chromium)
	@$(PYTEST) "browser" || status=$$?; [ $$status -eq 0 ] || [ $$status -eq 5 ]

lint: $(STAMP)  ## check style (ruff) and types (mypy)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP)  ## put the sources into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## delete .venv, the benchmarks' environments and caches; runs/ stays
	rm -rf $(VENV) .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis build dist
	find distppo tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
