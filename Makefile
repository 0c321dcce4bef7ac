# Every target sets up what it needs in .venv. PYTHON picks the interpreter, PIP_FLAGS goes to pip as it is.
PYTHON ?= python3
PIP_FLAGS ?=
ARGS ?=
VENV := .venv
# onnxruntime reports to its maker otherwise.
export ORT_DISABLE_TELEMETRY ?= 1
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --quiet $(PIP_FLAGS)

.PHONY: demo test install pipeline proto monitoring chart pins lint format types contracts triton pytest clean

demo: $(VENV)/.serving ## gateway on the shipped models, pictures of all of them, the page to play with
	$(BIN)/atelier demo $(ARGS)

test: install lint types contracts pytest ## everything that CI checks

install: $(VENV)/.dev ## everything into .venv: serving, training, export and the tools of the tests

pipeline: install ## train small models of all four families from nothing, export, serve and draw them
	$(BIN)/atelier pipeline $(ARGS)

proto: install ## generate serving/pb again from proto/
	$(BIN)/python -m grpc_tools.protoc -Iserving/pb=proto/atelier/v1 --python_out=. --pyi_out=. \
	  --grpc_python_out=. --include_imports --include_source_info \
	  --descriptor_set_out=serving/pb/image_generation.binpb serving/pb/image_generation.proto

chart: install ## generate the chart's README and the schema of its settings again
	PYTHONPATH=. $(BIN)/python helm/generate.py

pins: install ## write the lists of what goes into the images again
	$(BIN)/python images/pin.py

monitoring: install ## rules, dashboards and docs/metrics.md again from monitoring/
	$(BIN)/python -m monitoring

lint: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

types: install
	$(BIN)/mypy

contracts: install
	$(BIN)/lint-imports

triton: install ## a real Triton for the tests, in .cache; without it they are skipped, and fail where CI=true
	@$(BIN)/python -m benchmarks.triton.installation || [ "$$CI" != true ]

pytest: install triton
	OMP_NUM_THREADS=1 $(BIN)/pytest $(ARGS)

clean:
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist demo

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; assert sys.version_info >= (3, 11), "atelier needs Python 3.11 or newer; set PYTHON="'
	$(PYTHON) -m venv $(VENV) || { echo "no venv module: install it (Debian: apt-get install python3-venv)"; exit 1; }

# An environment that already holds everything serves the demo too.
$(VENV)/.serving: pyproject.toml | $(VENV)/bin/python
	@echo "Installing the gateway into $(VENV) ..."
	$(PIP) --editable '.[serving]'
	@touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/bin/python
	@echo "Installing training, export, gateway and tests into $(VENV) ..."
	$(PIP) --editable '.[dev]'
	@touch $@ $(VENV)/.serving
