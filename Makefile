# One environment for everything; `make demo` and `make test` are all that a newcomer needs.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
ENV := $(VENV)/.installed
DEMO := runs/demo
# The peers that benchmarks compare with never enter the project's own environment.
BENCH := .venv-bench
BENCH_ENV := $(BENCH)/.installed

.PHONY: demo env test test-long test-peers check lint types format bench bench-env

demo: $(ENV)
	@rm -rf $(DEMO)
	$(BIN)/gossamer train dense/digits-natural --out $(DEMO)/natural
	$(BIN)/gossamer train bcs/digits-90 --out $(DEMO)/robust-sparse
	$(BIN)/gossamer report $(DEMO)/robust-sparse $(DEMO)/natural -o $(DEMO)/report.html
	@echo "open $(DEMO)/report.html: what was trained, what survives attack, and where the weights are"

env: $(ENV)

$(ENV): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

test: $(ENV)
	$(BIN)/pytest -n auto

# Also what only these tests need: a Ray cluster of several processes, tables as Parquet and xarray, MLflow and
# Weights & Biases.
test-long: $(ENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[long]'
	$(BIN)/pytest -m long

# What other libraries' attacks find, beside ours; they live where the benchmarks' peers do.
test-peers: $(BENCH_ENV)
	TQDM_DISABLE=1 $(BENCH)/bin/python -m pytest -m long tests/attacks/test_peers.py

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

bench-env: $(BENCH_ENV)

$(BENCH_ENV): pyproject.toml constraints.txt benchmarks/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed: make PYTHON=python3.12 ...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(BENCH)
	$(BENCH)/bin/pip install --quiet --disable-pip-version-check -c constraints.txt -c benchmarks/constraints.txt \
		-e '.[export]' torchattacks adversarial-robustness-toolbox multiprocess foolbox pyautoattack openvino \
		pytest hypothesis
	@touch $@

bench: $(ENV) $(BENCH_ENV)
	TQDM_DISABLE=1 $(BENCH)/bin/python benchmarks/adversarial_step.py
	$(BENCH)/bin/python benchmarks/import_time.py
	$(BENCH)/bin/python benchmarks/demo.py
	$(BENCH)/bin/python benchmarks/artifact_speed.py
	$(BENCH)/bin/python benchmarks/artifact_masks.py
	$(BENCH)/bin/python benchmarks/artifact_layers.py
	$(BENCH)/bin/python benchmarks/tables.py
