# make demo: train on real digits, evaluate, draw, report. make torch: PyTorch and the twin beside it. make test: every
# behaviour once; make slow: the long tests; make parity: everything against PyTorch. make notebooks: executes
# notebooks/*.py and writes *.ipynb. make docs: the site of docs/, in build/site, its tutorials executed, in minutes;
# make docs-quick: the same in build/quick, nothing executed; make docs-browser: the site, and all of it opened in
# Chromium. All set themselves up in .venv. Another Python has an environment of its own, for any of them:
# make test PYTHON=python3.13 VENV=.venv-3.13
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUN := runs/digits
# Not $(BIN)/d3pm: pip writes a broken one where the name of the folder has a quote.
D3PM := $(BIN)/python -m d3pm_jax

.PHONY: demo torch test slow parity lint notebooks docs docs-quick docs-browser asked-python clean

demo: $(VENV)/installed-train
	$(D3PM) train configs/digits_gaussian.py --workdir $(RUN) $(if $(wildcard $(RUN)/config.json),--resume)
	$(D3PM) eval $(RUN)
	$(D3PM) sample $(RUN)
	$(D3PM) report $(RUN)

torch: $(VENV)/installed-torch

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile -q -m "not slow"

# Two passes: what is marked optimised is compiled as users compile it, which takes twice as long (see conftest.py).
slow: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m "slow and not optimised"
	XLA_FLAGS= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -q -m optimised \
		$$(grep -rl --include='*.py' mark.optimised tests parity_tests)

parity: $(VENV)/installed-dev
	$(BIN)/python -m parity_tests

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports

notebooks: $(VENV)/installed-dev
	$(BIN)/python notebooks/execute.py

docs: $(VENV)/installed-docs
	rm -rf build/site
	$(BIN)/python -m sphinx -W --keep-going docs build/site
	$(BIN)/python docs/check_site.py build/site

# A cell that is not executed has no language, of which myst-nb warns.
docs-quick: $(VENV)/installed-docs
	rm -rf build/quick
	$(BIN)/python -m sphinx -W --keep-going -D nb_execution_mode=off -D suppress_warnings=myst-nb.lexer docs build/quick
	$(BIN)/python docs/check_site.py build/quick

docs-browser: docs $(VENV)/installed-browser
	$(BIN)/python docs/check_browser.py

clean:
	rm -rf .venv .venv-* build dist .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is older than 3.11: pass a newer one, e.g. make demo PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv "$(VENV)"

# A Python that is asked for has to be the one of the environment.
asked-python: | $(VENV)/bin/python
ifneq ($(origin PYTHON),file)
	@version='import sys; print(*sys.version_info[:2])'; \
	[ "$$($(PYTHON) -c "$$version")" = "$$($(BIN)/python -c "$$version")" ] || \
		{ echo "$(VENV) has another Python than $(PYTHON): pass another folder, e.g. VENV=.venv-other"; exit 1; }
endif

$(VENV)/installed-train: pyproject.toml | asked-python
	$(BIN)/python -m pip install -q -e '.[train]'
	@touch $@

$(VENV)/installed-torch: pyproject.toml | asked-python
	$(BIN)/python -m pip install -q -e '.[torch,train]'
	@touch $@ $(VENV)/installed-train

$(VENV)/installed-dev: pyproject.toml | asked-python
	$(BIN)/python -m pip install -q -e '.[dev]'
	@touch $@ $(VENV)/installed-torch $(VENV)/installed-train

$(VENV)/installed-docs: pyproject.toml | asked-python
	$(BIN)/python -m pip install -q -e '.[docs]'
	@touch $@ $(VENV)/installed-torch $(VENV)/installed-train

$(VENV)/installed-browser: pyproject.toml | asked-python
	$(BIN)/python -m pip install -q -e '.[browser]'
	@touch $@ $(VENV)/installed-docs $(VENV)/installed-torch $(VENV)/installed-train
