# Two commands set everything up: make repro, make test. `make help` lists the rest.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
WORKERS := 2
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
export PATH := $(CURDIR)/$(BIN):$(PATH)
.DEFAULT_GOAL := help
.PHONY: help repro test test-slow lint params tiny-model smollm2-adapter constraints clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-16s %s\n", $$1, $$2}'

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	@touch $@

repro: $(VENV)/.installed ## set up .venv, run the pipeline (dvc repro), show the metrics
	@python -m hardsoft.config --check || echo "make repro runs params.yaml as it is"
	dvc repro
	@dvc metrics diff --all
	@echo
	@echo "the page   data/processed/report.html"
	@echo "labels     data/processed/hard_soft_skills.csv, labels.csv"
	@echo "reasoning  data/processed/CoT.log"
	@echo "metrics    metrics/*.json (dvc metrics show), dvc plots show"

test: $(VENV)/.installed-dev ## run the test suite
	pytest -n $(WORKERS) --dist loadgroup -m "not slow and not gpu and not external"

test-slow: $(VENV)/.installed-dev ## run the longer tests too
	pytest -n $(WORKERS) --dist loadgroup -m "not gpu and not external"

lint: $(VENV)/.installed-dev ## ruff and mypy
	ruff check
	ruff format --check
	mypy

params: $(VENV)/.installed ## compose conf/ into params.yaml
	python -m hardsoft.config

tiny-model: $(VENV)/.installed ## train the tiny checkpoint from its lexicon
	PYTHONPATH=src python models/tiny/train.py

smollm2-adapter: $(VENV)/.installed-dev ## train the adapter and the read-out of smollm2, and measure them (2 hours)
	dvc repro models/smollm2/dvc.yaml:base
	PYTHONPATH=src python -m models.smollm2.train
	dvc repro models/smollm2/dvc.yaml:checkpoint
	PYTHONPATH=src python -m models.smollm2.evaluate
	dvc repro models/smollm2/dvc.yaml:checkpoint
	python -m hardsoft.readout fit --validation models/smollm2/validation.csv --name smollm2

constraints: ## resolve pyproject.toml anew into constraints.txt
	rm -rf .cache/resolve && $(PYTHON) -m venv .cache/resolve
	.cache/resolve/bin/pip install --quiet '.[dev]'
	.cache/resolve/bin/pip freeze --exclude hardsoft | sed 's/+cpu$$//' > constraints.txt

clean: ## remove .venv and caches (not DVC's)
	rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis
