# `make demo` and `make test` set up everything they need in .venv; a second run starts at once.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check --quiet
# Tests run in one process a core, so each takes one thread.
JOBS   ?= auto

.PHONY: help demo test lint types tests claims claims-today docs clean
help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 24

demo: $(VENV)/.demo ## cut a small real model to a budget: no downloads but the packages, three minutes
	$(BIN)/secateur demo

test: lint types tests ## everything that must hold: style, types, tests

lint: $(VENV)/.dev ## style
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/.dev ## types
	$(BIN)/pyright --pythonpath $(BIN)/python

tests: $(VENV)/.dev $(VENV)/.llama ## the tests alone
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n $(JOBS) --dist loadfile

claims: $(VENV)/.dev ## what the cards claim, measured anew on all cores: benchmarks/claims.csv, and the cards' tables
	PYTHONPATH=src $(BIN)/python -m benchmarks.claims

claims-today: $(VENV)/.dev ## a few of them, in turn by the date, held against their rows
	PYTHONPATH=src $(BIN)/python -m benchmarks.claims --today

docs: $(VENV)/.dev ## the docs as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

clean: ## forget the environment and the caches
	rm -rf $(VENV) .pytest_cache .ruff_cache build dist site

# torch comes first and alone: a later install finds it there and fetches no other build of it
$(VENV)/.torch: constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) install $$(grep '^torch==' constraints.txt)
	@touch $@

$(VENV)/.demo: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[vllm,report]'
	@touch $@

# llama.cpp, built by somebody else, so that GGUF files are run for real; without it those tests are skipped
$(VENV)/.llama: $(VENV)/.torch
	@npm install --silent --no-save --no-audit --no-fund --prefix $(VENV) @node-llama-cpp/linux-x64@3.22.1 \
	  || echo "llama.cpp is not here (npm could not fetch it): its tests will be skipped"
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@ $(VENV)/.demo
