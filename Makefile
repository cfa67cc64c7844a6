.PHONY: setup test fast lint types format

# A virtual environment in .venv, made once; `make PYTHON=python` uses the current one.
PYTHON ?= .venv/bin/python

setup: .venv/.ready

.venv/.ready: pyproject.toml requirements.txt
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --editable '.[dev]'
	touch .venv/.ready

test: lint types
	$(PYTHON) -m pytest -n 2

fast: lint types
	$(PYTHON) -m pytest -n 2 -m 'not slow'

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

types:
	$(PYTHON) -m mypy

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
