# Every target first installs what is missing (scripts/setup); with nothing missing that takes a moment.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

PY := .venv/bin/python
# Seconds for each fuzz target.
FUZZ_SECONDS ?= 20
# Further arguments for pytest, for example: make test PYTEST_ARGS="tests/iso7816 -k tlv"
PYTEST_ARGS ?=
# Further arguments for the runner of faults, for example: make faults FAULTS="--job unlock --every 5"
FAULTS ?=
# Readers of the demo: virtual (its own) or pcsc (a real pcscd that it starts, and strangers' tools at the end).
READER ?= virtual
# How long make soak takes.
SECONDS ?= 3600

.PHONY: help setup demo test lint typecheck bench fuzz mutants faults soak proto docs clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup:  ## install what is missing: system packages (apt-get, as root or through sudo) and .venv
	@scripts/setup test

demo: setup  ## the main job: server, daemon, two cards issued, renewed, unlocked, checked; READER=pcsc by pcscd
	@$(PY) -m cardwright_clients.demo --reader $(READER)

# All three run even if one fails, so that one run shows everything; pytest comes last.
test: setup  ## lint, types, then the whole test suite
	@status=0; \
	.venv/bin/ruff check . || status=1; \
	.venv/bin/mypy || status=1; \
	$(PY) -m pytest -n auto --dist worksteal --durations=10 $(PYTEST_ARGS) || status=1; \
	exit $$status

lint: setup typecheck  ## ruff, then mypy
	@.venv/bin/ruff check .

typecheck: setup  ## mypy, strict
	@.venv/bin/mypy

bench: setup  ## measure, side by side with the public tools that are installed
	@$(PY) -m bench.run

fuzz:  ## each target of tests/fuzz for FUZZ_SECONDS (20) seconds
	@scripts/setup test fuzz
	@scripts/fuzz $(FUZZ_SECONDS)

mutants: setup  ## mutation tests of tests/mutants/*.toml, in a copy of the tree; fails under 85 % killed
	@scripts/mutants

faults: setup  ## every fault at every moment of card sessions, and of whole stacks; about three quarters of an hour
	@$(PY) -m tests.faults.run $(FAULTS)
	@if [ -z "$(FAULTS)" ]; then \
	  CARDWRIGHT_LINE_FAULTS=1 CARDWRIGHT_DAEMON_FAULTS=1 CARDWRIGHT_PROCESS_FAULTS=1 CARDWRIGHT_HOLDER_FAULTS=5 \
	    $(PY) -m pytest -q tests/faults/test_holder.py \
	    tests/whole/test_line_faults.py tests/whole/test_daemon_faults.py tests/whole/test_leaving.py \
	    tests/whole/test_swapped.py tests/whole/test_lock.py tests/faults/test_processes.py; \
	fi
	@$(if $(FAULTS),,$(PY) -m tests.faults.tokens)

soak: setup  ## cards come and go while lines are cut and cards are pulled, for SECONDS (3600)
	@$(PY) -m tests.soak.run --seconds $(SECONDS)

proto: setup  ## regenerate the committed modules beside the .proto files
	@$(PY) scripts/proto.py

docs: setup  ## regenerate the tables and man pages in docs that are made from the code
	@$(PY) scripts/errors_doc.py
	@$(PY) scripts/states_doc.py
	@$(PY) scripts/rights_doc.py
	@$(PY) scripts/man_pages.py

clean:  ## remove .venv and everything that tools left behind
	@rm -rf .venv .make .mypy_cache .ruff_cache .pytest_cache .hypothesis .coverage dist build
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
