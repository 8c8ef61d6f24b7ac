# `make demo` and `make test` need Python 3.11 or newer and nothing else; both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo demo-weather demo-plants test test-fast lint format clean

help:
	@echo "make demo       both jobs on embedded data: train, score, report (minutes); demo-weather and"
	@echo "                demo-plants run one"
	@echo "make test       lint, types and all tests"
	@echo "make test-fast  the tests that take less than 20 seconds each"
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

test: install lint
	$(BIN)/python -m pytest

test-fast: install
	$(BIN)/python -m pytest -m 'not slow'

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache
