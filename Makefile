# `make help` lists the targets. Each makes the virtual environment first if it is missing or out of date.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
HOME_DIR ?= var

.DEFAULT_GOAL := help
.PHONY: help run serve test test-slow check docs bench lock clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; ok = (3, 11) <= sys.version_info[:2] <= (3, 12); sys.exit(0 if ok else f"Python 3.11 or 3.12 is needed, this is {sys.version.split()[0]}: make PYTHON=/path/to/python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

run: $(READY) ## simulate a shop, run the whole training pipeline on it, print what was decided
	$(BIN)/esmm --home $(HOME_DIR) run

serve: $(READY) ## serve the champion on http://127.0.0.1:3000
	$(BIN)/esmm --home $(HOME_DIR) serve

test: $(READY) ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow and not gpu" -n 2 --dist loadfile --no-loadscope-reorder $(ARGS)

test-slow: $(READY) ## many seeds, many kills
	$(BIN)/python -m pytest -m slow -s $(ARGS)

check: $(READY) ## format, lint, types, import directions, docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pipelines.docs --check

docs: $(READY) ## write the generated tables in docs/ again
	$(BIN)/python -m pipelines.docs

bench: $(READY) ## measure, as ratios in one run
	$(BIN)/python -m benchmarks $(ARGS)

lock: $(READY) ## resolve requirements.lock again, keeping what still fits (needs uv; LOCK=--upgrade for the newest)
	uv pip compile --universal --python-version 3.11 --no-header --no-annotate --no-emit-index-url --extra dev \
	  pyproject.toml -q -o requirements.lock $(LOCK)
	sed -i -E '/^(nvidia-(cu|nccl|nvjitlink|nvshmem|nvtx)|cuda-|triton)/d' requirements.lock

clean: ## remove the virtual environment (state in $(HOME_DIR) is kept)
	rm -rf $(VENV)
