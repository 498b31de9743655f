# Everything a person or CI does with this repository. Variables: PYTHON (3.11 or newer), VENV, PYTEST_ARGS, DV.
PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=
DV ?= 8 9
BIN = $(VENV)/bin
READY = $(VENV)/.ready

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help environment demo test test-dirac check unit bench bench-peers provision docs clean

help:
	@echo "make demo         set up, then render a picture in 64 jobs through real pilots"
	@echo "make test         set up, then every check and every test"
	@echo "make test-dirac   pilots and jobs of a real DIRAC, 8 and 9 (DV=8 or DV=9: one of them); builds it once"
	@echo "make check        the static checks only: ruff, mypy, import contracts, vermin"
	@echo "make unit         the quick tests only"
	@echo "make bench        what a job and a pilot cost on this machine"
	@echo "make bench-peers  the same beside HyperQueue, dask and Parsl (installs them in environments of their own)"
	@echo "make provision    install the system packages that the tests use (apt; needs root or sudo)"
	@echo "make docs         write the generated pages of docs/reference anew"
	@echo "make clean        remove the environment and everything generated"

environment: $(READY)

# A second make is instant: the environment is made anew only when what it is made from has changed.
$(READY): constraints.txt pyproject.toml node/pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Pilotage needs Python 3.11 or newer: make PYTHON=/path/to/python3.11 ..." >&2; exit 1; }
	@echo "Making the Python environment in $(VENV) (once; a minute or two) ..."
	@test -x "$(BIN)/python" || $(PYTHON) -m venv "$(VENV)"
	@"$(BIN)/python" -m pip install -qq --disable-pip-version-check -c constraints.txt -e node -e '.[test]'
	@touch "$@"

demo: $(READY)
	@"$(BIN)/python" examples/picture/demo.py

check: $(READY)
	"$(BIN)/python" -m ruff check .
	"$(BIN)/python" -m ruff format --check .
	"$(BIN)/python" -m mypy
	"$(BIN)/lint-imports"
	"$(BIN)/vermin" -t=3.6- --no-tips --violations node/src

# Tests mostly wait for processes, so several run at a time. pytest's closing line is the last thing printed.
test: check unit
	@"$(BIN)/python" -m pytest tests/integration tests/real tests/faults -n 3 --dist loadfile $(PYTEST_ARGS)

# Environments (minutes) are built below build/dirac where they are not; servers are made from nothing each time.
test-dirac: $(READY)
	@PILOTAGE_DIRAC="$(DV)" "$(BIN)/python" -m pytest tests/dirac --timeout 3600 $(PYTEST_ARGS)

unit: $(READY)
	@"$(BIN)/python" -m pytest tests/unit -n 4 $(PYTEST_ARGS)

bench: $(READY)
	@"$(BIN)/python" -m bench

bench-peers: $(READY)
	@"$(BIN)/python" -m bench peers

provision:
	@tools/provision

docs: $(READY)
	@"$(BIN)/python" tools/reference.py

clean:
	rm -rf "$(VENV)" build demo-output .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +
	find . -name '*.egg-info' -prune -exec rm -rf {} +
