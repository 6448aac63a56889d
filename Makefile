# `make demo` shows the whole job on this machine; `make test` runs the tests. Both install what they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := infra/constraints.txt
# What the tests need beside the jobs; an image leaves it out.
EXTRAS := [dev]

.PHONY: install demo sweep test lint chaos multihost clean

install: $(STAMP)

$(STAMP): pyproject.toml $(CONSTRAINTS) infra/embedded.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) torch
	$(BIN)/pip install --constraint $(CONSTRAINTS) --editable '.$(EXTRAS)'
	$(BIN)/pip install --quiet --no-deps --require-hashes --requirement infra/embedded.txt
	touch $@

demo: install
	$(BIN)/python -m jobs.demo

# A short sweep of the demo's model, made first where it is not there yet.
sweep: install
	$(BIN)/python -m jobs.generate
	$(BIN)/python -m jobs.train
	$(BIN)/python -m jobs.sweep quant=short

test: install
	$(BIN)/python -m pytest

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check

# As root: starts a Ceph store and network namespaces, installing what they need. SEED=n repeats a run.
chaos: install
	$(BIN)/python -m pytest tests/chaos --runchaos $(if $(SEED),--seed=$(SEED))

# As root: a night over several hosts, as network namespaces. SEED=n repeats a run.
multihost: install
	$(BIN)/python -m pytest tests/chaos/test_several_hosts.py --runchaos $(if $(SEED),--seed=$(SEED))

clean:
	rm -rf artifacts demo
