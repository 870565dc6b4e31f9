# make demo        set up .venv and see it work
# make test        lint, types and the tests that need nothing else
# make lab         real QEMUs, Linux guests and firmware under .lab/
# make test-guest  the tests that need them
PYTHON ?= python3
BIN := .venv/bin
# One test process for each core.
PYTEST := $(BIN)/pytest -n auto --dist worksteal

.PHONY: demo test lint lab test-guest bench clean

demo: .venv/runtime
	@$(BIN)/nvmelab demo
	@command -v nvmelab > /dev/null || \
	  echo 'path     export PATH=$$PWD/.venv/bin:$$PATH             first: so that a shell finds nvmelab'

test: lint
	$(PYTEST) -m "not guest"

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lab:
	lab/prepare

# Each test boots a machine of two CPUs, so one at a time.
test-guest: .venv/dev lab
	$(BIN)/pytest -m guest

bench: .venv/dev lab
	$(BIN)/python bench/controller.py
	$(BIN)/python bench/links.py
	$(BIN)/python bench/top.py
	$(BIN)/python bench/explore.py
	$(BIN)/python bench/diagnose.py
	$(BIN)/python bench/guest.py

.venv/runtime: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "nvmelab needs Python 3.11 or later; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv || \
	  { echo "python3 -m venv failed; on Debian: apt install python3-venv" >&2; exit 1; }
	@$(BIN)/pip install -q --disable-pip-version-check -e .
	@touch $@

.venv/dev: .venv/runtime
	@$(BIN)/pip install -q --disable-pip-version-check -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .lab .mypy_cache .ruff_cache .pytest_cache .hypothesis
