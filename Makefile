# Everything a developer types. Needs Python 3.11 or newer and make; the rest is installed into .venv from the lock.
# Variables are lower case: make would hand an upper-case one back to `make run` in place of the caller's own.

venv := .venv
bin := $(venv)/bin
# Scripts and the editable install hold the path of the checkout: a moved one finds no stamp and is built anew.
stamp := $(venv)/installed-for$(subst $() ,_,$(subst /,-,$(CURDIR)))
wheels := $(venv)/wheels
compiled := $(venv)/compiled-tests
lock_tools := .venv-lock
prices_tools := .venv-prices
genai_prices := 0.2.3

# The first interpreter that can build a virtual environment. Expanded only when one has to be built.
probe := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
python = $(or $(firstword $(foreach p,python3.11 python3 python3.12 python3.13 python3.14,\
	$(shell $(p) -c '$(probe)' >/dev/null 2>&1 && echo $(p)))),\
	$(error Python 3.11 or newer with the venv module is needed (on Debian: apt install python3 python3-venv)))

# Local wheels and extra indexes of this machine must not leave their hashes in the lock.
pip_compile = PIP_CONFIG_FILE=/dev/null PIP_FIND_LINKS= PIP_EXTRA_INDEX_URL= CUSTOM_COMPILE_COMMAND='make lock' \
	$(lock_tools)/bin/pip-compile pyproject.toml --quiet --upgrade --generate-hashes --strip-extras --allow-unsafe \
	--no-header --no-emit-index-url --no-emit-find-links --no-emit-trusted-host --no-emit-options

args ?=

.DEFAULT_GOAL := help
.PHONY: help install run test check coverage bench fmt lock prices

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' Makefile

install: $(stamp)  ## Create .venv and install the locked packages (the other targets do it on their own)

$(stamp): requirements-dev.lock pyproject.toml scripts/install.py
	@$(python) scripts/install.py $(venv) $(stamp)

run: $(stamp)  ## Start Sidegate on 127.0.0.1:8080; stop it with Ctrl-C
	@exec $(bin)/sidegate serve --welcome $(args)

# What the image is made of; a test builds its tree from these without the network.
$(wheels): requirements.lock $(stamp)
	@rm -rf $(wheels) && mkdir $(wheels)
	@$(bin)/python -m pip download -qq --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
		--dest $(wheels) --requirement requirements.lock
	@touch $(wheels)

# The first time, one core checks types while the other compiles the tests, which each of their processes would do.
# Three processes on two cores: a fifth of the time of two is waiting, for answers, clocks and processes that start.
test: $(stamp)  ## Run every check and every test; args="-k name" narrows the tests
	@$(MAKE) --no-print-directory -j2 check $(compiled) $(wheels)
	@$(bin)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(args)

# What is wrong with them the tests themselves will tell.
$(compiled): $(stamp)
	@$(bin)/python -m pytest --collect-only -qq > /dev/null 2>&1 || true
	@touch $(compiled)

# They are worth keeping, also where the environment asks Python not to.
test coverage: export PYTHONDONTWRITEBYTECODE :=

check: $(stamp)  ## Check format, lint, types, imports, layout and locks
	@$(bin)/ruff format --check --quiet .
	@$(bin)/ruff check --quiet .
	@$(bin)/mypy --no-error-summary
	@report=$$($(bin)/lint-imports 2>&1) || { echo "$$report"; exit 1; }
	@$(bin)/python scripts/check_layout.py
	@echo "check: format, lint, types, imports, layout and locks are fine"

coverage: $(stamp) $(wheels)  ## Run the tests and show which branches they miss
	@$(bin)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder --cov --cov-report=term-missing:skip-covered $(args)

bench: $(stamp)  ## Measure Sidegate beside a bare pass-through
	@$(bin)/python -m bench.run $(args)
	@$(bin)/python -m bench.policy_relay

fmt: $(stamp)  ## Format the code and fix what ruff can fix
	@$(bin)/ruff check --quiet --fix-only .
	@$(bin)/ruff format .

lock:  ## Resolve both lock files anew
	@$(python) -m venv --clear $(lock_tools)
	@$(lock_tools)/bin/python -m pip install -qq --disable-pip-version-check pip-tools
	@$(pip_compile) --output-file requirements.lock
	@$(pip_compile) --constraint requirements.lock --extra embedded --extra dev --output-file requirements-dev.lock
	@rm -rf $(lock_tools)

prices:  ## Generate config/prices.yaml anew; genai_prices=X.Y.Z picks the release of the source
	@$(python) -m venv --clear $(prices_tools)
	@$(prices_tools)/bin/python -m pip install -qq --disable-pip-version-check genai-prices==$(genai_prices)
	@$(prices_tools)/bin/python scripts/generate_prices.py config/prices.yaml
	@rm -rf $(prices_tools)
