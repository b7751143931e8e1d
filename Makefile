# `make demo` trains, draws, measures and reports; `make test` runs the tests.
# Each makes .venv when it is not there, and installs what it needs into it.
PYTHON ?= python3
BUDGET ?= 150s
RUN ?= runs/demo
BIN := .venv/bin

.PHONY: demo test check slow docs clean

demo: .venv/.demo
	$(BIN)/steerable demo --run $(RUN) --budget $(BUDGET)

test: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow"

slow: .venv/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal -m slow

check: .venv/.dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/pyrefly check

docs: .venv/.dev
	$(BIN)/python docs/make_parts.py
	$(BIN)/python docs/make_interface.py

clean:
	rm -rf .venv

.venv/bin/python:
	$(PYTHON) -m venv .venv

.venv/.demo: pyproject.toml constraints.txt | .venv/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[eval]"
	touch $@

.venv/.dev: .venv/.demo
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[eval,dev]"
	touch $@
