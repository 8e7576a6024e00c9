# GNU make and a POSIX shell are enough: everything is installed into .venv, on first use and again when pyproject.toml
# or the C code of the receive thread changes (which needs a C compiler; without one sockets are read from Python).
# `make help` lists the targets.

VENV := .venv
BIN := $(VENV)/bin
# Tried in this order unless PYTHON is given; a name can exist and still not run, as pyenv's shims do.
PYTHON ?=
CANDIDATES := $(or $(PYTHON),python3.13 python3.12 python3.11 python3)
NATIVE := setup.py $(wildcard tokenswarm/transport/*.[ch])
# Most tests wait much of their time, so three at once keep two cores busy.
PYTEST := $(BIN)/python -m pytest -n 3 --dist worksteal
# More for pytest, as in: make test ARGS="-k simulator"
ARGS ?=

# Not compiled: most modules of the big packages are never imported, and the others are compiled when they are.
PIP_INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable

.DEFAULT_GOAL := help
.PHONY: help install demo test quick conformance prometheus browser sanitize lint format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-11s %s\n", $$1, $$2 }' Makefile

demo: install ## 100 users for a minute against the embedded simulator, with a report
	@unset LOCUST_HOST; set -x; \
	$(BIN)/locust -f locustfiles/chat.py --headless --users 100 --spawn-rate 20 --run-time 60s --hardware local

test: $(VENV)/.installed-dev ## all tests; make test ARGS="-k simulator" for some
	$(PYTEST) $(ARGS)

quick: $(VENV)/.installed-dev ## the tests that take less than five seconds each: for every day
	$(PYTEST) -m "not slow" $(ARGS)

conformance: $(VENV)/.installed-dev ## every real model server, installed into .servers; ARGS="-k vLLM" for one
	$(BIN)/python -m pytest tests/conformance --every-server --write-page $(ARGS)

prometheus: $(BIN)/promtool ## Debian's Prometheus into .venv, for the tests that scrape with it (apt-get, dpkg)

browser: $(BIN)/chromium-headless-shell ## Debian's Chromium into .venv, for the tests that open reports (apt-get, dpkg)

sanitize: $(VENV)/.installed-dev ## the receive thread's tests under gcc's sanitizers (Linux)
	tests/sanitize_receiver.sh $(BIN)/python

lint: $(VENV)/.installed-dev ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.installed-dev ## put the code into ruff's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed ## the suite itself, into .venv

clean: ## remove .venv and what tools left behind; runs/ stays
	rm -rf $(VENV) build dist *.egg-info metrics_exporter/build metrics_exporter/*.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .servers
	rm -f tokenswarm/transport/*.so
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.installed: pyproject.toml $(NATIVE) $(BIN)/python
	@echo "Installing tokenswarm into $(VENV) …"
	@$(PIP_INSTALL) .
	@touch $@

# All at once, since every call of pip goes through all requirements again.
$(VENV)/.installed-dev: pyproject.toml $(NATIVE) $(BIN)/python
	@echo "Installing tokenswarm, and what tests and checks need, into $(VENV) …"
	@$(PIP_INSTALL) '.[test,servers,lint]'
	@touch $(VENV)/.installed $@

# Unpacked, not installed: it needs no rights, and starts no service.
$(BIN)/promtool: | $(BIN)/python
	@folder=$$(mktemp -d) && trap 'rm -rf "$$folder"' EXIT && cd "$$folder" && \
	apt-get download prometheus && dpkg -x prometheus_*.deb unpacked && \
	cp unpacked/usr/bin/prometheus unpacked/usr/bin/promtool "$(abspath $(BIN))/"

$(BIN)/chromium-headless-shell: | $(BIN)/python
	@tests/unpack_chromium.sh $(BIN)

# No prerequisites: a .venv that runs is kept.
$(BIN)/python:
	@old=''; bare=''; \
	for python in $(CANDIDATES); do \
	    version=$$("$$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue; \
	    if ! "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	        old="$$old $$python ($$version)"; continue; \
	    fi; \
	    if ! "$$python" -c 'import ensurepip, venv' 2>/dev/null; then \
	        bare="$$bare $$python ($$version)"; continue; \
	    fi; \
	    echo "Making $(VENV) with $$python ($$version) …"; \
	    exec "$$python" -m venv --clear $(VENV); \
	done; \
	if [ -n "$$bare" ]; then \
	    echo "This Python has no venv module:$$bare. On Debian and Ubuntu: sudo apt-get install python3-venv" >&2; \
	elif [ -n "$$old" ]; then \
	    echo "Python 3.11 or newer is needed, and this one is too old:$$old. Name another: make PYTHON=/path/to/python3.12" >&2; \
	else \
	    echo "Python 3.11 or newer is needed, and none of these runs: $(CANDIDATES). Name one: make PYTHON=/path/to/python3.12" >&2; \
	fi; \
	exit 1
