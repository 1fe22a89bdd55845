# All that is needed is Python 3.10 or newer (`make site`: 3.11), pip and make; everything else goes into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
CHECK := $(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && $(BIN)/lint-imports --no-logo --no-cache
PYTEST := $(BIN)/python -m pytest --numprocesses 3 --dist loadfile --no-loadscope-reorder
# Empty, so that compiled modules are kept where the surroundings say otherwise: the tests start many processes.
export PYTHONDONTWRITEBYTECODE :=
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: demo test test-all check wheels site model clean

demo: $(INSTALLED)  ## generate clips, ingest them, search with and without DITS
	$(BIN)/python -m benchmarks.demo

# Many tests wait for servers and children, so that there are more processes than cores, and lint runs beside them; its
# words follow. In the order of the files: by itself xdist puts those with few tests, which are the longest, last.
test: $(INSTALLED)  ## lint, strict types, import contract, tests
	@($(CHECK)) > $(VENV)/check.log 2>&1 & checking=$$!; \
	$(PYTEST); tested=$$?; wait $$checking; checked=$$?; cat $(VENV)/check.log; exit $$((tested + checked))

test-all: $(INSTALLED)  ## the slow tests, too
	$(PYTEST) -m "slow or not slow"

check: $(INSTALLED)
	$(CHECK)

wheels: $(INSTALLED)  ## build what is published, and try it in fresh environments
	$(BIN)/python distributions/licenses.py
	$(BIN)/python distributions/check.py

site: export NO_MKDOCS_2_WARNING := 1
site: $(INSTALLED)  ## the documentation site, into build/site
	@test -x $(BIN)/mkdocs || { echo "the site needs Python 3.11 or newer: make clean site PYTHON=python3.11" >&2; exit 1; }
	$(BIN)/mkdocs build --strict

model: $(INSTALLED)  ## rebuild the shipped encoder and adapters from nothing (about an hour on 2 cores)
	$(BIN)/python -m benchmarks.clips.train_clip --out dits_adapter/pretrained/demo-clip
	$(BIN)/python -m benchmarks.clips.train_adapters

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt torch==2.13.0
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --editable '.[dev]'
	# Without its dependencies: it wants an older huggingface-hub, for downloads that the tests do not make.
	$(BIN)/python -m pip install --no-compile --constraint constraints.txt --no-deps fastembed
	# pip does it on one core, and for a hundred models of transformers.
	-$(BIN)/python -m compileall -q -j 0 -x '/(tests?|models)/' $(VENV)/lib > /dev/null 2>&1
	touch $(INSTALLED)

clean:
	rm -rf $(VENV) results build dist
