# `make demo` and `make test` need Python 3.11 or newer and nothing else; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Two processes: distributed tests in one, all others in the other, then whatever is left.
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadgroup

.PHONY: help install demo demo-weather demo-plants test test-fast test-full lint format clean

help:
	@echo "make demo       both jobs on embedded data: train, score, report (minutes); demo-weather and"
	@echo "                demo-plants run one"
	@echo "make test       lint, types and the tests: what continuous integration runs"
	@echo "make test-fast  the tests that take less than 20 seconds each"
	@echo "make test-full  all tests, with the repetitions that docs/testing.md lists"
	@echo "make format     format the code"

$(BIN)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

install: $(BIN)/.installed

demo: demo-weather demo-plants

demo-weather: install
	$(BIN)/sciml-dchag demo weather

demo-plants: install
	$(BIN)/sciml-dchag demo plants

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Lint and types run beside the tests, whose last line stays the last one printed if all is well.
test: install
	@$(MAKE) --no-print-directory lint >.lint.log 2>&1 & lint=$$!; \
	$(PYTEST); tests=$$?; \
	if wait $$lint; then rm -f .lint.log; else cat .lint.log; exit 1; fi; \
	exit $$tests

test-fast: install
	$(PYTEST) -m 'not slow and not full'

test-full: install lint
	$(PYTEST) -m ''

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
