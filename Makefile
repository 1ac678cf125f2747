# Everything runs in .venv, which the first target that needs it creates and fills.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Arguments for pytest, for example: make test ARGS="-n 8 -m 'not slow'". Two processes with one thread each
# are faster here than one with two. A test that ends its process is begun again in a new one, twice at most.
ARGS ?= -n 2 --dist loadfile --max-worker-restart 2

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs format clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "  %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# A stamp says which set of packages .venv holds and is older than a change of either file.
$(VENV)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e .
	touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -c constraints.txt -e ".[cluster,docs,gis,lint,onnx,openvino,test,train]"
	touch $(VENV)/.installed $@

demo: $(VENV)/.installed ## fuse the sample pair into demo/
	$(BIN)/csakd-geo demo -o demo

test: $(VENV)/.installed-dev ## run the tests
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.installed-dev ## ruff, the formatter's check and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(VENV)/.installed-dev ## build the documentation into build/docs; warnings are errors
	rm -rf docs/generated
	$(BIN)/sphinx-build -b html -W --keep-going -q docs build/docs

format: $(VENV)/.installed-dev ## mend what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean: ## remove .venv, demo/, builds and caches
	rm -rf $(VENV) demo build dist docs/generated *.egg-info .pytest_cache .hypothesis .mypy_cache .ruff_cache .coverage
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
