# `make demo` and `make test` need Python 3.11 or newer and nothing else; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Byte code is kept even where the surroundings say otherwise (container images often do): compiling
# torch anew costs every process eight seconds.
export PYTHONDONTWRITEBYTECODE :=

# Three processes, so that two cores are busy: ranks wait for each other half of the time.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadscope

.PHONY: help install demo demo-weather demo-plants test test-fast test-full faults mutations soak bench lint format clean

help:
	@echo "make demo       both jobs on embedded data: train, score, report (minutes); demo-weather and"
	@echo "                demo-plants run one"
	@echo "make test       lint, types and the tests: what continuous integration runs"
	@echo "make test-fast  the tests that take less than 20 seconds each"
	@echo "make test-full  all tests, with the repetitions that docs/testing.md lists"
	@echo "make faults     kill commands at 100 random moments and compare the results (about an hour)"
	@echo "make mutations  2,000 changed files and settings: a result or one sentence (about an hour)"
	@echo "make soak       loader, training and forecasts for 20 minutes: nothing may grow"
	@echo "make bench      compare measured ratios of speed with those kept (about ten minutes)"
	@echo "make format     format the code"

# The stamp names the Python that .venv was made with; another one, or a broken .venv, is made anew.
.PHONY: check-python
check-python:
	@command -v $(PYTHON) >/dev/null || { \
		echo "There is no $(PYTHON): install Python 3.11 or newer, or name one with" \
			"PYTHON=python3.12." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "$(PYTHON) is $$($(PYTHON) -V 2>&1) and 3.11 or newer is needed: name one, such as" \
			"make $(or $(firstword $(MAKECMDGOALS)),install) PYTHON=python3.12." >&2; exit 1; }
	@here=$$($(PYTHON) -c 'import sys; print(sys.base_prefix, *sys.version_info[:3])'); \
	if [ -e $(VENV) ] && ! { [ "$$(cat $(BIN)/.python 2>/dev/null)" = "$$here" ] && \
		$(BIN)/python -c 'import pip' 2>/dev/null; }; then \
		if [ -e $(VENV)/pyvenv.cfg ] || [ -z "$$(ls -A $(VENV))" ]; then \
			echo "$(VENV) is of another Python, or broken, and is made anew."; rm -rf $(VENV); \
		else echo "$(VENV) is no environment of Python: rename it." >&2; exit 1; fi; \
	fi

# pip would compile every file that it installs. Compiled is what the package imports, in half of the
# time; what else tests import is compiled when they do.
$(BIN)/.installed: pyproject.toml constraints.txt | check-python
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile \
		-c constraints.txt -e '.[dev]'
	$(BIN)/python -c 'import importlib, pkgutil, sciml_dchag as package; [ \
		importlib.import_module(one.name) for one in pkgutil.walk_packages( \
		package.__path__, "sciml_dchag.") if not one.name.endswith("__main__")]'
	$(PYTHON) -c 'import sys; print(sys.base_prefix, *sys.version_info[:3])' > $(BIN)/.python
	touch $@

.PHONY: installed
installed: check-python
	@$(MAKE) --no-print-directory $(BIN)/.installed

install: installed
	@echo "Activate it: source $(VENV)/bin/activate"

demo: demo-weather demo-plants

demo-weather: installed
	$(BIN)/sciml-dchag demo weather

demo-plants: installed
	$(BIN)/sciml-dchag demo plants

lint: installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Lint and types run beside the tests, whose last line stays the last one printed if all is well.
test: installed
	@nice $(MAKE) --no-print-directory lint >.lint.log 2>&1 & lint=$$!; \
	$(PYTEST); tests=$$?; \
	if wait $$lint; then rm -f .lint.log; else cat .lint.log; exit 1; fi; \
	exit $$tests

test-fast: installed
	$(PYTEST) -m 'not slow and not full'

test-full: installed lint
	$(PYTEST) -m ''

faults: installed
	$(BIN)/python benchmarks/faults.py --kills 100 --json benchmarks/results/faults.json

mutations: installed
	$(BIN)/python benchmarks/mutations.py --json benchmarks/results/mutations.json

soak: installed
	$(BIN)/python benchmarks/soak.py --json benchmarks/results/soak.json

# Fails where a ratio is below 0.75 of the kept one.
bench: installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/bench.py

format: installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
