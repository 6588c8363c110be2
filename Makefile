PYTHON ?= python3
BIN := .venv/bin
LOWEST := .venv-lowest/bin
PIP := -q --disable-pip-version-check
WHEEL_TESTS := installed.py report $(addprefix guides/test_,stock.py mean_field.py dirichlet_rows.py delta.py) \
	$(addprefix priors/test_,compiling.py correlated.py densities.py globs.py masked_dirichlet.py row_laws.py settings.py weight_priors.py) \
	$(addprefix pyroformer/test_,spec.py mistakes.py)

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo notebooks test test-wheel lint venv clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile

demo: .venv/.core  ## compare methods on the digits, with a report in runs/demo
	$(BIN)/pyroformer compare digits --out runs/demo

notebooks: .venv/.dev  ## make notebooks/*.ipynb from the .py beside them
	$(BIN)/python notebooks/generate.py

test: export OMP_NUM_THREADS = 1
test: export PYTHONDONTWRITEBYTECODE =
test: .venv/.dev  ## run the tests
	$(BIN)/python -m pytest -n 2 --dist worksteal -q

# The wheel with the oldest versions, in a folder where nothing of this checkout can be imported. Warnings, which `make test`
# takes for errors, are left alone: old versions of one library warn about new ones of another.
test-wheel: export OMP_NUM_THREADS = 1
test-wheel: export PYTHONDONTWRITEBYTECODE =
test-wheel: .venv-lowest/.made  ## test the built wheel with the oldest supported versions
	rm -rf build .venv-lowest/dist
	$(LOWEST)/python -m pip wheel $(PIP) --no-deps -w .venv-lowest/dist .
	rm -rf build
	$(LOWEST)/python -m pip install $(PIP) --no-deps --force-reinstall .venv-lowest/dist/*.whl
	folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cp -R tests pyproject.toml constraints-lowest.txt "$$folder" && cd "$$folder" && \
		"$(CURDIR)/$(LOWEST)/python" -m pytest -q -n 2 -p no:cacheprovider -o filterwarnings=default $(addprefix tests/,$(WHEEL_TESTS))

lint: .venv/.dev  ## check format, style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p pyroformer

venv: .venv/.dev  ## make .venv with everything the tests need

clean:  ## remove .venv, .venv-lowest, build leftovers and caches; runs/ is kept
	rm -rf .venv .venv-lowest build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

define check_python
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "Pyroformer needs Python 3.11 or newer, and '$(PYTHON)' is not; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
endef

# A stamp is removed before pip starts and written after it ends: without one, .venv may be half made, so it is made anew.
define install
	@test -e .venv/.core || $(check_python)
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

# So here: what is in it comes off with the stamp. Without --no-compile, pip would compile thousands of modules that no test imports.
.venv-lowest/.made: pyproject.toml constraints-lowest.txt
	@$(check_python)
	@rm -f $@
	$(PYTHON) -m venv --clear .venv-lowest
	$(LOWEST)/python -m pip install $(PIP) --no-compile -c constraints-lowest.txt . pytest pytest-xdist hypothesis
	@touch $@
