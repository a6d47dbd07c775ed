# One environment for everything; `make demo` and `make test` are all that a newcomer needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.installed
DEMO := runs/demo

.PHONY: demo env test test-long check lint types format

demo: $(ENV)
	$(BIN)/gossamer train dense/digits-natural --out $(DEMO)/natural
	$(BIN)/gossamer train bcs/digits-90 --out $(DEMO)/robust-sparse
	$(BIN)/gossamer report $(DEMO)/robust-sparse $(DEMO)/natural -o $(DEMO)/report.html

env: $(ENV)

$(ENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: $(ENV)
	$(BIN)/pytest -n auto

test-long: $(ENV)
	$(BIN)/pytest -m long

check: $(ENV) lint types
	$(BIN)/pytest -q tests/architecture

lint: $(ENV)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(ENV)
	$(BIN)/pyright

format: $(ENV)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
