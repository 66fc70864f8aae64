.DEFAULT_GOAL := help
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
# Test processes: more than cores, because many tests wait for Milvus.
WORKERS ?= 4
# Of `make milvus`.
PORT ?= 19530
milvus: DATA ?= data/milvus

.PHONY: help install demo milvus test drills drills-milvus drills-apart drills-rest check protos bench bench-serve \
	bench-report recording released lock audit third-party sbom bounds wheel images reference docs docs-serve clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: .venv/installed  ## Create .venv with everything, versions and hashes from requirements.lock

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14) and "Python 3.11, 3.12 or 3.13 is needed, found " + sys.version)'
	@echo "installing into .venv: about 2.6 GB, once"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --disable-pip-version-check --quiet --require-hashes -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --quiet --no-deps -e .
	@touch $@

demo: install  ## Train, index, serve, evaluate, call: a few minutes. Your own data: DATA=clicks.csv ITEMS=items.csv
	@$(BIN)/python -m tests.demo $(if $(DATA),--data "$(DATA)") $(if $(ITEMS),--items "$(ITEMS)") \
		$(if $(NAMES),--names "$(NAMES)")

milvus: install  ## A real Milvus server until Ctrl-C: PORT=19530 DATA=data/milvus
	@$(BIN)/python -m tests.milvus --port $(PORT) --data $(DATA)

test: install  ## Tests, against Milvus Lite and a real Milvus server, in parallel: a quarter of an hour on two cores
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

drills: install  ## Kills, hangs, overload, soak, fuzz, small benchmarks, the demo, packages and images: a quarter of an hour
	@$(MAKE) --no-print-directory --jobs 3 --keep-going --output-sync=target drills-milvus drills-apart drills-rest

drills-milvus:
	$(BIN)/pytest tests/drills -m milvus

drills-apart:  # each in a network of its own; where the system grants none, they are among the former
	$(BIN)/pytest tests/drills -m apart || test $$? -eq 5

drills-rest:
	$(BIN)/pytest tests/drills -m "not milvus and not apart"

check: install  ## ruff, mypy --strict, import arrows, words of the documentation, buf lint, compatible contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest tests/project/test_architecture.py tests/project/test_words.py
	$(BIN)/buf lint
	$(BIN)/buf breaking --against protos/released.json

protos: install  ## Generate protos/**/*_pb2*.py anew
	$(BIN)/python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. --grpc_python_out=. protos/recall/v1/*.proto

reference: install  ## Write the pages of docs/reference/ that are made from the code
	$(BIN)/python -m tests.reference

docs: install  ## Build the documentation site into build/site; a warning or a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

docs-serve: install  ## Show the documentation site on http://127.0.0.1:8001 while you edit it
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs serve --dev-addr 127.0.0.1:8001

recording: install  ## Run the demo, on MovieLens and on the tutorial's shop, and draw tests/demo.svg and docs/shop.svg
	$(BIN)/python -m tests.recording

released: install  ## At a release: keep the contract as the one that must stay compatible
	$(BIN)/buf build --exclude-source-info -o protos/released.json

bench: install  ## Benchmarks, with the machine and a baseline beside every figure
	$(BIN)/python -m tests.bench.encode_and_merge

bench-serve: install  ## Our server, the article's stack and bare Milvus side by side, and each feature: 26 minutes
	$(BIN)/python -m tests.bench.serving

bench-report: install  ## All benchmarks, written into docs/explanation/figures.md: about two hours
	$(BIN)/python -m tests.bench.report

lock: install  ## Resolve requirements.lock anew
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
		--no-annotate --no-header --upgrade -q -o requirements.lock

audit: install  ## Known vulnerabilities of the locked packages, as OSV tells them
	@$(BIN)/python -m tests.supply audit

third-party: install  ## Write THIRD_PARTY.md: the locked packages and their licences
	@$(BIN)/python -m tests.supply third-party

sbom: install  ## Write build/sbom.json: what the product installs (CycloneDX)
	@$(BIN)/python -m tests.supply sbom

bounds: install  ## Print what one caller can send, for SECURITY.md
	@$(BIN)/python -m tests.bounds

wheel: install  ## Build the wheel of the last commit into dist: same commit, same bytes
	@$(BIN)/python -m tests.supply wheel

images: install  ## Build the container images with Docker, Podman or Buildah: TARGETS="server gateway" BASE=IMAGE
	@$(BIN)/python -m tests.build_images $(if $(BASE),--base "$(BASE)") $(if $(ENGINE),--engine "$(ENGINE)") $(TARGETS)

clean:  ## Remove what the demo and the tests made
	rm -rf build .pytest_cache .mypy_cache .ruff_cache
