# Everything runs from a virtual environment in .venv that the first target makes by itself.

PYTHON ?= python3
BENCH_ARGS ?=
GPU_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := bench kernels sampler
# pip as few seconds as it can: .pyc files are written by the first import of what is really imported
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# on a GPU machine, whose PyTorch is usually there already, .venv is used only where it has been made; else the first
# that finds PyTorch
GPU_PYTHON = $(if $(wildcard $(VENV)/installed),$(BIN)/python,$(firstword $(shell for p in python3 python; do \
  $$p -c "import importlib.util as u, sys; sys.exit(not u.find_spec('torch'))" 2>/dev/null && echo $$p; done) python3))

# an empty value means 'write .pyc files': without them every fresh process reads PyTorch's sources anew, ten seconds
export PYTHONDONTWRITEBYTECODE :=

.DEFAULT_GOAL := help
.PHONY: help bench test test-slow test-long test-extra gpu gpu-rest lint format report keep clean

help:  ## list the targets
	@echo "usage: make TARGET [PYTHON=python3.12] [BENCH_ARGS='--budget 60']"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bench: $(VENV)/installed  ## measure every technique on this machine and print the table (BENCH_ARGS is passed on)
	$(BIN)/python -m pytest bench --benchmark-only $(BENCH_ARGS)

test: $(VENV)/installed  ## the quick tests, without a GPU
	$(BIN)/python -m pytest tests -m "not slow and not long and not gpu and not extra"

test-slow: $(VENV)/installed  ## the slow tests (compilers, whole runs, tables of own models), without a GPU
	$(BIN)/python -m pytest tests -m "slow and not long and not gpu and not extra"

test-long: $(VENV)/installed  ## rows that hang, peers, every command in a clean checkout, ways of starting: half an hour
	$(BIN)/python -m pytest tests -m "long and not gpu and not extra"

test-extra: $(VENV)/installed-dev  ## looks at the report in Chromium, where one is installed (apt-get install chromium)
	$(BIN)/python -m pytest tests -m extra

gpu:  ## what a lent GPU is to show, in 8 minutes: update, table, tests; GPU_ARGS='--part large' and others: the rest
	@$(GPU_PYTHON) -c "import torch" 2>/dev/null || { echo "make gpu: $(GPU_PYTHON) has no PyTorch"; exit 1; }
	$(GPU_PYTHON) -m bench gpu $(GPU_ARGS)

gpu-rest:  ## three minutes more on the GPU: the rows that `make gpu` leaves out first
	@$(MAKE) --no-print-directory gpu GPU_ARGS="--part rest $(GPU_ARGS)"

lint: $(VENV)/installed-dev  ## style, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(PACKAGES)

format: $(VENV)/installed-dev  ## rewrite the files the way `make lint` wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

report: $(VENV)/installed  ## rebuild every machine's page from the stored results
	$(BIN)/python -m bench report

keep: $(VENV)/installed  ## put this machine's newest run (or RUN=PATH) where it can be committed, results/<machine>
	$(BIN)/python -m bench keep $(RUN)

clean:  ## remove the environment and every cache, never a result that is kept
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks results/scratch results/pages \
	  results/local/scratch
	find $(PACKAGES) tests -name __pycache__ -type d -prune -exec rm -rf {} +

# Three stamps: the bare environment, the pinned packages, the developer's tools.

$(VENV)/made:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { echo "make: Python 3.11 or newer is needed, and\
	 $(PYTHON) is `$(PYTHON) --version 2>&1`; name another one: make PYTHON=python3.12 …"; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" || { echo "make: $(PYTHON) cannot make virtual environments;\
	 install its venv module (Debian, Ubuntu: apt-get install python3-venv)"; exit 1; }
	@$(PYTHON) -c "import os, sys, sysconfig; sys.exit(not os.path.exists(sysconfig.get_path('include') + '/Python.h'))" \
	  || { echo "make: Python.h of $(PYTHON) is missing and torch.compile needs it;\
	 install the headers (Debian, Ubuntu: apt-get install python3-dev)"; exit 1; }
	@command -v $(CXX) >/dev/null || { echo "make: the C++ compiler $(CXX) is missing and torch.compile needs it;\
	 install it (Debian, Ubuntu: apt-get install g++)"; exit 1; }
	@echo "making $(VENV) with `$(PYTHON) --version`"
	@rm -rf $(VENV)
	@$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/installed: pyproject.toml constraints.txt | $(VENV)/made
	@echo "installing the pinned packages into $(VENV), once; PyTorch is large, this takes minutes"
	@$(INSTALL) -e '.[test,peers]'
	@$(INSTALL) --no-deps azula denoising-diffusion-pytorch
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(INSTALL) -e '.[dev]'
	@touch $@
