# The one entry point; CI calls the same targets. Every target prepares what it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.ready
SEEDS ?= 2000
FIRST ?= 0
KILLS ?= 200
MINUTES ?= 10
SECONDS ?= 60

.PHONY: setup demo test lint types imports unit explore slow simulate nodes twins mutants crash kill9 soak fuzz proofs bench clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Kanglian needs Python 3.11 or newer, this is " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $(STAMP)

demo: setup
	$(BIN)/python -m bench.demo

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: setup
	$(BIN)/basedpyright

imports: setup
	$(BIN)/lint-imports

unit: setup
	$(BIN)/pytest -q -n 2 tests/unit tests/property tests/vectors tests/fuzz tests/peer_bugs

explore: setup
	$(BIN)/pytest -q -n 2 tests/simulation tests/crash tests/twins tests/byzzfuzz tests/mutants tests/node_simulation

slow: setup
	$(BIN)/pytest -q -n 2 tests/integration tests/e2e --ignore tests/e2e/test_speed_guard.py
	$(BIN)/pytest -q tests/e2e/test_speed_guard.py tests/nemesis

simulate: setup
	$(BIN)/python -m tests.simulation.run --seeds $(SEEDS) --first $(FIRST)

nodes: setup
	$(BIN)/python -m tests.node_simulation.run --seeds $(SEEDS) --first $(FIRST)

crash: setup
	$(BIN)/python -m tests.crash.run --seeds $(SEEDS) --first $(FIRST)

kill9: setup
	$(BIN)/python -m tests.nemesis.kill9 --kills $(KILLS)

soak: setup
	$(BIN)/python -m tests.nemesis.soak --minutes $(MINUTES)

fuzz: setup
	$(BIN)/python -m tests.fuzz.run --seconds $(SECONDS)

proofs: setup
	$(BIN)/python -m tests.fuzz.proofs --seconds $(SECONDS)

twins: setup
	$(BIN)/python -m tests.twins.run --seconds $(SECONDS) $(if $(FROM),--progress $(FROM))

mutants: setup
	$(BIN)/python -m tests.mutants.run

bench: setup
	$(BIN)/kanglian bench quick

test: lint types imports unit explore slow

clean:
	rm -rf $(VENV) demo-network
