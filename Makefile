# Everything a fresh machine needs: Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Commands and tests start hundreds of processes: each would compile again what it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test docs clean
demo: $(VENV)/installed
	$(BIN)/kdkit demo

test: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@echo "mypy and pytest, beside each other"
	@$(BIN)/mypy >$(VENV)/mypy.txt 2>&1 & types=$$!; trap "kill $$types 2>/dev/null" EXIT INT TERM; \
	$(BIN)/pytest -n 2 --dist loadfile --no-loadscope-reorder; tests=$$?; \
	wait $$types; types=$$?; trap - EXIT; cat $(VENV)/mypy.txt; exit $$((tests + types))

docs: $(VENV)/installed
	$(BIN)/python -m sphinx -W --keep-going -n -b html docs docs/_build/html

$(VENV)/installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --no-compile -e '.[dev]'  # Python compiles what it imports
	@touch $@

clean:
	rm -rf $(VENV)
