# Two commands do it all on a machine with Python 3.11 and make: `make run` and `make test`.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
# The compiler of TPUs has an environment of its own: where it is installed, JAX looks for TPUs.
TPU_VENV ?= .venv-tpu
LOCKS := containers/requirements
# Looks at the lock files of these images, from an environment that has none of their packages.
AUDIT := build/audit
IMAGES := cpu gpu deploy serve tpu tpu-tf
# More arguments for the command of a target, e.g. make run ARGS="--images DIR --output DIR"
ARGS ?=
# How many times make kills kills.
KILLS ?= 20
# How many photos make damage damages; a quarter as many shards.
DAMAGED ?= 2400
# How many runs in a row make endurance makes.
RUNS ?= 50
# Docker's client, for the targets that build or run images.
export DOCKER ?= docker
UV_COMPILE := uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help run compile submit test lint types unit test-distributed test-docker test-docker-tpu test-faults test-browser test-hostile tpu-check test-tpu-check damage kills endurance audit sbom reference format lock image smoke clean

help: ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: $(VENV)/local.installed ## Run the whole pipeline here, on synthetic flowers or with ARGS
	@$(BIN)/flowers run $(ARGS)

compile: $(VENV)/local.installed ## Compile the pipeline, with ARGS of flowers compile
	@$(BIN)/flowers compile $(ARGS)

submit: $(VENV)/dev.installed ## Submit the pipeline, with ARGS of flowers submit
	@$(BIN)/flowers submit $(ARGS)

test: lint types unit ## Lint, check types, run the tests

lint: $(VENV)/dev.installed ## Check style and configuration files
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/check-jsonschema --builtin-schema vendor.cloudbuild cloudbuild.yaml
	$(BIN)/yamllint --strict .
	$(BIN)/hadolint containers/Dockerfile
	$(BIN)/shellcheck containers/install.sh .ci/run

types: $(VENV)/dev.installed ## Check types
	$(BIN)/mypy

unit: $(VENV)/dev.installed ## Run the tests that need no container engine
	$(BIN)/pytest --numprocesses=auto --dist=loadfile \
		-m "not docker and not faults and not browser and not hostile and not distributed and not tpu_check and not kills and not endurance"

test-faults: $(VENV)/dev.installed ## Let every single request of a deployment or a submission fail once
	$(BIN)/pytest --numprocesses=auto --dist=load -m faults --timeout=900 tests/components/deploy_model \
		tests/pipelines $(ARGS)

test-distributed: $(VENV)/dev.installed ## Train on eight devices and on two hosts, of this CPU
	$(BIN)/pytest --numprocesses=auto --dist=loadfile -m distributed --timeout=1800 \
		tests/components/train_model $(ARGS)

test-docker: $(VENV)/dev.installed ## Build the CPU image and run the tests that need an engine
	$(BIN)/pytest --numprocesses=2 --dist=loadfile -m docker tests/containers \
		--ignore=tests/containers/test_tpu.py $(ARGS)

test-docker-tpu: $(VENV)/dev.installed ## Build and try the images for TPUs, which are large
	$(BIN)/pytest -m docker tests/containers/test_tpu.py --timeout=3600 $(ARGS)

test-browser: $(VENV)/dev.installed ## Look at the report and the page in Chromium; pictures in build/screenshots
	$(BIN)/pytest -m browser tests/browser $(ARGS)

test-hostile: $(VENV)/dev.installed ## Send 2,000 hostile requests to the server
	$(BIN)/pytest -m hostile tests/pipelines/serving $(ARGS)

tpu-check: $(TPU_VENV)/tpu-check.installed ## Compile for TPUs without one, with ARGS of flowers tpu check
	@$(TPU_VENV)/bin/flowers tpu check $(ARGS)

test-tpu-check: $(VENV)/dev.installed $(TPU_VENV)/tpu-check.installed ## Ask the real compiler of TPUs
	FLOWERS_TPU_PYTHON=$(TPU_VENV)/bin/python $(BIN)/pytest -m tpu_check \
		tests/pipelines/tpu_check $(ARGS)

kills: $(VENV)/dev.installed ## Kill steps and runs KILLS=20 times; take disk, memory and clock away
	$(BIN)/pytest --numprocesses=2 --dist=load -m kills tests/test_kill.py tests/test_resources.py --kills=$(KILLS) \
		--timeout=7200 $(ARGS)

endurance: $(VENV)/dev.installed ## RUNS=50 runs in one process, and eight at once in one folder
	$(BIN)/pytest -m endurance tests/test_endurance.py --runs=$(RUNS) --timeout=7200 $(ARGS)

damage: $(VENV)/dev.installed ## Ingest DAMAGED=2400 damaged photos, and a quarter as many shards
	$(BIN)/pytest tests/components/ingest_examples/test_damage.py --damaged-inputs=$(DAMAGED) \
		--override-ini=timeout=900

sbom: $(AUDIT)/audit.installed ## Write a bill of materials of each image to build/sbom
	@mkdir -p build/sbom
	@for image in $(IMAGES); do \
		$(AUDIT)/bin/cyclonedx-py requirements $(LOCKS)/$$image.txt --output-reproducible \
			--output-file build/sbom/$$image.cdx.json || exit 1; \
	done

# Strict: a package that the database does not know ends it, as one that nobody looked up.
audit: sbom ## Look for known vulnerabilities of what the images hold; needs the network
	@for image in $(IMAGES); do \
		$(AUDIT)/bin/pip-audit --strict --disable-pip --require-hashes -r $(LOCKS)/$$image.txt \
			|| exit 1; \
	done

reference: $(VENV)/dev.installed ## Write docs/recipes.md anew, of the code
	@$(BIN)/python -m pipelines.recipe_reference > docs/recipes.md

format: $(VENV)/dev.installed ## Format the code
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

lock: ## Pin every dependency anew, with hashes; needs uv
	$(UV_COMPILE) pyproject.toml $(LOCKS)/build.in --extra local --extra docker --extra vertex \
		--extra kubeflow --extra serve --extra onnx --extra dev -o $(LOCKS)/dev.txt
	$(UV_COMPILE) pyproject.toml $(LOCKS)/build.in --extra local --extra docker \
		-c $(LOCKS)/dev.txt -o $(LOCKS)/local.txt
	$(UV_COMPILE) pyproject.toml $(LOCKS)/build.in --extra local --extra tpu-check \
		-c $(LOCKS)/local.txt -o $(LOCKS)/tpu-check.txt
	$(UV_COMPILE) $(LOCKS)/cpu.in -o $(LOCKS)/cpu.txt
	$(UV_COMPILE) $(LOCKS)/gpu.in -o $(LOCKS)/gpu.txt
	$(UV_COMPILE) $(LOCKS)/tpu.in -o $(LOCKS)/tpu.txt
	uv pip compile --quiet --python-version 3.11 --python-platform x86_64-manylinux_2_31 \
		--generate-hashes --no-emit-index-url --custom-compile-command "make lock" \
		$(LOCKS)/tpu-tf.in -o $(LOCKS)/tpu-tf.txt
	$(UV_COMPILE) $(LOCKS)/deploy.in -o $(LOCKS)/deploy.txt
	$(UV_COMPILE) $(LOCKS)/serve.in -o $(LOCKS)/serve.txt
	$(UV_COMPILE) $(LOCKS)/audit.in -o $(LOCKS)/audit.txt
	$(UV_COMPILE) --no-deps $(LOCKS)/kfp.in -o $(LOCKS)/kfp.txt

image: $(VENV)/local.installed ## Build the CPU image, or with ARGS of flowers images build
	@$(BIN)/flowers images build $(ARGS)

smoke: $(VENV)/local.installed ## Run the pipeline in the images, small and quick
	@$(BIN)/flowers run --runner docker --images "synthetic://flowers?per_class=60" \
		--set train.epochs=3 --set gate.threshold=0.25 --output build/smoke $(ARGS)

clean: ## Remove the environment and caches; runs stay
	rm -rf $(VENV) $(TPU_VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

# The project itself comes last and without dependencies: the lock file has them all.
$(VENV)/local.installed: $(LOCKS)/local.txt pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCKS)/local.txt
	$(BIN)/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

$(AUDIT)/audit.installed: $(LOCKS)/audit.txt
	$(PYTHON) -m venv $(AUDIT)
	$(AUDIT)/bin/python -m pip install --quiet --require-hashes -r $(LOCKS)/audit.txt
	@touch $@

$(VENV)/dev.installed: $(LOCKS)/dev.txt $(VENV)/local.installed
	$(BIN)/python -m pip install --quiet --require-hashes -r $(LOCKS)/dev.txt
	@touch $@

$(TPU_VENV)/bin/python:
	$(PYTHON) -m venv $(TPU_VENV)

$(TPU_VENV)/tpu-check.installed: $(LOCKS)/tpu-check.txt pyproject.toml | $(TPU_VENV)/bin/python
	$(TPU_VENV)/bin/python -m pip install --quiet --require-hashes -r $(LOCKS)/tpu-check.txt
	$(TPU_VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
