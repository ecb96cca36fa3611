# Each target sets up .venv by itself where it is missing or stale. `make` alone lists them.

PYTHON ?= $(shell for p in python3.11 python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
RUN ?= demo-run
BIN := .venv/bin

.PHONY: help setup demo test check format bench soak peer clean

help:  ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

setup:  ## make .venv, or bring it up to date (PYTHON=... to choose the interpreter)
	@scripts/set_up_venv.sh "$(PYTHON)"

demo: setup  ## the whole factory on drawn pictures, without network, into demo-run (RUN=... for another folder)
	$(BIN)/popfactory demo $(RUN)

test: setup  ## all tests: unit, integration, and end to end with a real browser (ARGS=... for pytest)
	@scripts/install_chromium.sh
	$(BIN)/python -m pytest $(wildcard tests/unit tests/integration tests/e2e) -n auto --maxprocesses 4 --dist loadfile $(ARGS)

check: setup  ## style, types, imports between packages, docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup  ## lay the code out and sort its imports
	$(BIN)/ruff check --fix --exit-zero --quiet .
	$(BIN)/ruff format .

bench: setup  ## benchmarks, one line of JSON a figure (ONLY=name for one, FULL=1 for full size)
	@$(BIN)/python -m benchmarks $(if $(FULL),,--quick) $(ONLY)

soak: setup  ## the long, repeated tests
	@scripts/install_chromium.sh
	$(BIN)/python -m pytest tests -m soak --timeout 3600 $(ARGS)

peer: setup  ## clip-retrieval 2.45 in an environment of its own, beside our server: same folders, same questions
	@scripts/set_up_peer.sh "$(PYTHON)"
	$(BIN)/python -m tests.peer $(if $(PEER_PYTHON),$(PEER_PYTHON),.venv-peer/bin/python)

clean:  ## remove .venv, caches and the demo's run
	rm -rf .venv .venv-peer demo-run dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
