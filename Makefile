# The everyday commands. `make` lists them; each sets up what it needs in .venv and may be run again.

PYTHON ?= python3
BIN := .venv/bin
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --retries 10 --timeout 60 --editable
# A network may fail for a moment: three attempts.
AGAIN := || { echo "== once more, in 10 seconds"; sleep 10; false; } ||

.DEFAULT_GOAL := help
.PHONY: help demo test quick torture lint format coverage bench clean

help:  ## list these commands
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' \
		|| { echo "embedindex needs Python 3.10 or later; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@echo "== making a virtual environment in .venv"
	@$(PYTHON) -m venv .venv \
		|| { rm -rf .venv; echo "Python cannot make virtual environments; on Debian: apt install python3-venv"; exit 1; }

.venv/installed: .venv/bin/python pyproject.toml
	@echo "== installing embedindex and the packages it needs"
	@$(PIP_INSTALL) . $(AGAIN) $(PIP_INSTALL) . $(AGAIN) $(PIP_INSTALL) .
	@touch $@

.venv/installed-dev: .venv/bin/python pyproject.toml
	@echo "== installing embedindex and what its tests need"
	@$(PIP_INSTALL) '.[dev]' $(AGAIN) $(PIP_INSTALL) '.[dev]' $(AGAIN) $(PIP_INSTALL) '.[dev]'
	@touch .venv/installed .venv/installed-plots $@

.venv/installed-plots: .venv/installed
	@echo "== installing matplotlib, for pictures"
	@$(PIP_INSTALL) '.[plots]' \
		&& touch $@ || echo "== it could not be installed: the demo goes on without pictures"

demo: .venv/installed .venv/installed-plots  ## synthesise a library of sounds, search it, and remix a piece out of it
	@BIN=$(BIN) sh examples/demo.sh

test: .venv/installed-dev lint  ## everything CI checks: lint, types, all tests, coverage
	@echo "== tests"
	@rm -f .coverage .coverage.*
	@$(BIN)/coverage run -m pytest -q -n 2 --dist worksteal
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --skip-covered --fail-under=90

quick: .venv/installed-dev  ## only the quick tests
	@$(BIN)/python -m pytest -q -n 2 -m "not slow and not network"

torture: .venv/installed-dev  ## hundreds of killed scans and full disks, thousands of damaged files (a quarter of an hour)
	@$(BIN)/python -m pytest -q -n 2 --dist worksteal -m torture tests/torture

lint: .venv/installed-dev  ## ruff and mypy
	@echo "== ruff, mypy"
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))'; then $(BIN)/mypy; else \
		echo "== types are checked on Python 3.11, as NumPy tells others on each; not here"; fi

format: .venv/installed-dev  ## put the code into shape
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

bench: .venv/installed-dev  ## the figures of the README (some minutes)
	@for script in startup rescan cold_similar memory scan_speed scale; do $(BIN)/python benchmarks/$$script.py || exit 1; done

clean:  ## remove the virtual environment, the demo and caches
	rm -rf .venv demo .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage .coverage.*
