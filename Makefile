.PHONY: demo setup test fast cases accelerator lint types format lowest

# A virtual environment in .venv, made once.
PYTHON := .venv/bin/python

setup: .venv/.ready

.venv/.ready: pyproject.toml
	python3 -m venv .venv
	.venv/bin/python -m pip install --quiet --upgrade pip
	.venv/bin/python -m pip install --quiet --editable '.[dev]'
	touch .venv/.ready

demo: setup
	.venv/bin/prn train --config=demo --workdir=demo

test: setup lint types
	$(PYTHON) -m pytest -n 2 --dist worksteal --durations=40 --durations-min=5

fast: setup lint types
	$(PYTHON) -m pytest -n 2 --dist worksteal -m 'not slow'

# What users reported, from the reference data.
cases: setup
	$(PYTHON) -m pytest -n 2 tests/test_cases.py

# On a machine with an NVIDIA GPU and `pip install '.[gpu]'` (with a TPU: DEVICE=tpu): that it computes what the CPU computes.
DEVICE := cuda
accelerator: setup
	JAX_PLATFORMS=$(DEVICE),cpu $(PYTHON) -m pytest tests/accelerator

lint:
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

# The oldest versions that requirements.txt allows. Compiled as pip does it: the warnings that some give then are not ours.
lowest:
	python3 -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet uv
	.venv-lowest/bin/uv pip install --quiet --compile-bytecode --python .venv-lowest/bin/python --resolution lowest-direct -e '.[dev]'
	.venv-lowest/bin/python -m pytest -n 2 -m 'not slow'

types:
	$(PYTHON) -m mypy

format:
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .
