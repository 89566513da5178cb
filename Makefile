# make demo, make test: from a fresh clone; the first run makes .venv, a later one installs nothing.
# TORCH=2.14.1 does the same with another release of torch, in an environment and a build folder of its own.
PYTHON ?= python3
WORKERS ?= 2
TORCH ?=

VENV := .venv$(if $(TORCH),-torch-$(TORCH))
BUILD := $(if $(TORCH),--config-settings=build-dir=build/torch-$(TORCH))
BIN := $(VENV)/bin
SOURCES := CMakeLists.txt pyproject.toml $(shell find csrc -type f)
# The install in place lists modules when it is made, so a module that comes, goes or moves asks for a new one.
MODULES := $(shell find stonefx passes benchmarks -name '*.py' | sort | cksum | cut -d ' ' -f 1)
INSTALLED := $(VENV)/.installed-$(MODULES)

.PHONY: demo test test-slow lint docs cuda gpu bench install clean

demo: install
	@mkdir -p build
	$(BIN)/stonefx demo --html build/demo.html

# One thread for each worker: more would only fight for the cores.
test: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal $(ARGS)

test-slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m slow $(ARGS)

bench: install
	$(BIN)/stonefx bench $(ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	.ci/tree build/lint
	cd build/lint && $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p stonefx
	$(BIN)/python .ci/imports.py build/lint

# The pages of docs/ as a site in build/docs; a warning, such as a link that leads nowhere, is an error.
docs: install
	.ci/tree build/docs-tree
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict

# Compiles the CUDA library for sm_80 and sm_90; needs nvcc, but no GPU.
cuda: install
	STONEFX_CUDA=1 STONEFX_CUDA_ARCHITECTURES="80;90" $(BIN)/python -m pip wheel . --no-build-isolation --no-deps \
	  --wheel-dir build/cuda-wheel --config-settings=build-dir=build/cuda
	$(BIN)/python -m zipfile -l build/cuda-wheel/stonefx-*.whl | grep libstonefx_cuda

# On a machine with a card, of which nothing is installed and no network is reached: see .ci/gpu.py.
gpu:
	$(PYTHON) .ci/gpu.py $(ARGS)

install: $(INSTALLED)

$(VENV)/.requirements: requirements-dev.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	sed '$(if $(TORCH),s/^torch==.*/torch==$(TORCH)/)' requirements-dev.txt > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --disable-pip-version-check -r $(VENV)/requirements.txt
	touch $@

# No build isolation: an isolated build would download a second torch.
$(INSTALLED): $(VENV)/.requirements $(SOURCES)
	@$(BIN)/python .ci/kernels.py
	$(BIN)/python -m pip install --disable-pip-version-check --no-build-isolation --no-deps $(BUILD) -e .
	rm -f $(VENV)/.installed*
	touch $@

clean:
	rm -rf build .venv .venv-torch-*
