PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo notebooks test lint venv clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: .venv/.core  ## compare methods on the digits, with a report in runs/demo
	$(BIN)/pyroformer compare digits --out runs/demo

notebooks: .venv/.dev  ## make notebooks/*.ipynb from the .py beside them
	$(BIN)/python notebooks/generate.py

test: export OMP_NUM_THREADS = 1
test: .venv/.dev  ## run the tests
	$(BIN)/python -m pytest -n 2 -q

lint: .venv/.dev  ## check format, style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p pyroformer

venv: .venv/.dev  ## make .venv with everything the tests need

clean:  ## remove .venv, build leftovers and caches; runs/ is kept
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A stamp is removed before pip starts and written after it ends: without one, .venv may be half made, so it is made anew.
define install
	@test -e .venv/.core || $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Pyroformer needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@test -e .venv/.core || $(PYTHON) -m venv --clear .venv
	@rm -f .venv/.core .venv/.dev
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e "$(1)"
endef

.venv/.core: pyproject.toml constraints.txt
	$(call install,.)
	@touch $@

.venv/.dev: pyproject.toml constraints.txt
	$(call install,.[dev])
	@touch .venv/.core $@
