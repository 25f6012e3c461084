# `make` prints this list. Every line is what CI runs; after the first set-up nothing needs the network.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
OUT    ?= demo-out
GPU_PYTHON ?= $(BIN)/python
MEDIA  := tests/media/two_people
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

.PHONY: help demo test test-all gpu check fix golden notebook clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /|/' | awk -F'|' '{printf "  make %-10s %s\n", $$1, $$2}'

$(VENV)/core: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, this is " + sys.version)'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) -e .
	@touch $@

$(VENV)/dev: $(VENV)/core
	$(INSTALL) -e '.[dev]'
	@touch $@

demo: $(VENV)/core  ## sample recordings → a verified corpus in demo-out, in its own environment
	$(BIN)/microturn build $(MEDIA) $(OUT)/corpus
	$(BIN)/microturn verify $(OUT)/corpus --against $(MEDIA) --windows 2
	$(BIN)/microturn report $(OUT)/corpus
	$(BIN)/microturn inspect $(OUT)/corpus
	$(BIN)/microturn inspect $(OUT)/corpus video-00000-assistant-0000000 --ticks 40:56
	@echo
	@echo "Look at $(OUT)/corpus/report.html; more of a window, tick by tick: $(BIN)/microturn inspect $(OUT)/corpus KEY"

test: $(VENV)/dev  ## the tests that CI runs, in their own environment
	$(BIN)/python -m pytest -q -m "not nightly"

test-all: $(VENV)/dev  ## those, and the nightly ones
	$(BIN)/python -m pytest -q

gpu:  ## on a machine with a CUDA build of torch: the Triton forms' values and bits there, then their speed beside torch's
	$(GPU_PYTHON) -c 'import sys, torch; sys.exit(not torch.cuda.is_available() and "no CUDA device, or a torch without CUDA: make gpu GPU_PYTHON=…")'
	$(GPU_PYTHON) -m pytest -q -m gpu tests/kernels
	$(GPU_PYTHON) -m microturn.kernels.gpu.bench

check: $(VENV)/dev  ## format, lint and types; changes nothing
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

fix: $(VENV)/dev  ## format, and mend what the linter can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

golden: $(VENV)/dev  ## rewrite the golden files; look at the difference before you commit it
	MICROTURN_GOLDEN=rewrite $(BIN)/python -m pytest -q -m "not nightly" -k golden || true
	git --no-pager diff --stat -- '*golden*'

notebook: $(VENV)/dev  ## JupyterLab on the notebooks
	$(BIN)/jupyter lab notebooks

clean:  ## remove the environment and everything built
	rm -rf $(VENV) $(OUT) build dist *.egg-info .pytest_cache .hypothesis .ruff_cache .mypy_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
