# Everything here works on a machine with Python 3.11 or newer, pip and make: each target makes the environment first.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet -c constraints.txt
PROJECTS := pyproject.toml $(wildcard plugins/*/pyproject.toml)
DEMO := plugins/mitocore_rsunet/src/mitocore_rsunet/demos/mito

.DEFAULT_GOAL := help
.PHONY: help setup demo test check format lint types imports docs coverage examples readme wheels nightly demo-weights clean

help:  ## what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{ printf "make %-14s %s\n", $$1, $$2 }'

.venv/ready: requirements-dev.txt constraints.txt $(PROJECTS)
	@$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "mitocore needs Python 3.11 or newer: make PYTHON=python3.12 …")'
	@echo "== environment in .venv (some minutes the first time)"
	@$(PYTHON) -m venv .venv
	@$(PIP) -r requirements-dev.txt
	@touch $@

setup: .venv/ready  ## the environment alone

demo: .venv/ready  ## segment a synthetic sample with the bundled weights; scores and a report
	$(BIN)/mitocore demo

test: .venv/ready  ## all tests but the slow ones
	$(BIN)/python -m pytest

check: format lint types imports docs coverage  ## what .ci/run runs, cheapest first

format: .venv/ready  ## is all Python formatted
	$(BIN)/ruff format --check .

lint: .venv/ready  ## ruff
	$(BIN)/ruff check .

types: .venv/ready  ## mypy, strict
	$(BIN)/mypy

imports: .venv/ready  ## which module may import which
	$(BIN)/lint-imports

docs: .venv/ready  ## the documentation, into site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet --site-dir site

coverage: .venv/ready  ## all tests but the slow ones: doctests, examples, README, wheels; 85 % of the code at least
	$(BIN)/python -m pytest --cov --cov-report=term:skip-covered --cov-fail-under=85

examples: .venv/ready  ## the files of examples/, on small synthetic volumes
	$(BIN)/python -m pytest tests/examples/test_examples.py

readme: .venv/ready  ## every command, TOML and Python block of README and tutorials
	$(BIN)/python -m pytest tests/examples/test_documents.py

wheels: .venv/ready  ## wheels and sdists of all distributions, used outside the checkout
	$(BIN)/python -m pytest tests/packaging

nightly: .venv/ready  ## slow tests: kill campaigns, memory of large volumes, wheels in several environments, GPU
	$(BIN)/python -m pytest -m "slow or gpu"

demo-weights: .venv/ready  ## train the weights that the demo brings
	rm -rf build/demo-weights
	$(BIN)/mitocore train $(DEMO)/train.toml --set train.folder=build/demo-weights --set train.devices=cpu
	cp build/demo-weights/best.safetensors $(DEMO)/mito.safetensors

clean:  ## remove what was built, not the environment
	rm -rf build dist site .coverage .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache
