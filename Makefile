PYTHON ?= python3
BIN := .venv/bin

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo test lowest lint venv clean

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

demo: .venv/.core  ## compare methods on the digits, with a report in runs/demo
	$(BIN)/pyroformer compare digits --out runs/demo

test: export OMP_NUM_THREADS = 1
test: .venv/.dev  ## run the tests
	$(BIN)/python -m pytest -n 2 -q

# The wheel, not the checkout, with the oldest versions, in a folder that holds nothing but the tests of the rooms.
lowest: export OMP_NUM_THREADS = 1
lowest: .venv/.dev  ## test the wheel with the oldest supported versions
	rm -rf .venv-lowest build
	$(PYTHON) -m venv .venv-lowest
	$(BIN)/python -m build --wheel --no-isolation --outdir .venv-lowest/dist .
	.venv-lowest/bin/python -m pip install --disable-pip-version-check -q -c constraints-lowest.txt "$$(ls .venv-lowest/dist/*.whl)[dev]"
	mkdir .venv-lowest/elsewhere && cp -r pyproject.toml tests .venv-lowest/elsewhere && rm .venv-lowest/elsewhere/tests/test_*.py
	cd .venv-lowest/elsewhere && ../bin/pyroformer run --help > /dev/null
	cd .venv-lowest/elsewhere && ../bin/python -m pytest -n 2 -q -o pythonpath= -o "filterwarnings=error:::pyroformer"

lint: .venv/.dev  ## check format, style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p pyroformer

venv: .venv/.dev  ## make .venv with everything the tests need

clean:  ## remove .venv, .venv-lowest, build leftovers and caches; runs/ is kept
	rm -rf .venv .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
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
