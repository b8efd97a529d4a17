# One word for each thing one does here; `make` alone lists them. Each makes .venv first if it is missing, or if
# pyproject.toml or constraints.txt changed, and fetches the assets once. After that nothing here needs a network.

# The first Python at hand from 3.11 to 3.14. Another one: make PYTHON=/path/to/python3.12 test
RIGHT := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
PYTHON ?= $(shell for name in python3.12 python3.13 python3.14 python3.11 python3; do \
	"$$name" -c '$(RIGHT)' 2>/dev/null && echo "$$name" && break; done)
# Tests at a time, each with one thread.
JOBS ?= 2
# Folder of the development patients, for `make weights`: data_scripts/development_patients.py fills it.
VOLUMES ?= runs/development_patients

PY := .venv/bin/python
INSTALLED := .venv/.installed
# The shipped generators learn from the sample patient's training slabs and two more patients; the chest is held out.
LEARN := "$(VOLUMES)/abdomen_CRLM-CT-1006_ge.nii.gz" "$(VOLUMES)/abdopelvis_TCGA-09-2043_toshiba.nii.gz"
UNSEEN := "$(VOLUMES)/chest_C3N-00249_siemens.nii.gz"
HAVE_PATIENTS = for file in $(LEARN); do test -f "$$file" || { echo "there is no $$file. Fetch the patients:" \
	"$(PY) data_scripts/development_patients.py --out '$(VOLUMES)'" >&2; exit 1; }; done
TRAIN := $(PY) -m alden_lite train --protocol wide --volumes $(LEARN)

# All begin where the base run ended and go equally far; the weights of ALDEN's losses are the recipe's defaults.
FURTHER := warm_start=runs/weights/base.safetensors steps=1000 learning_rate=2e-4 warmup=20 reuse=4 \
	average=0.995 precision=bf16-mixed

# Threads that spin while they wait are ten times slower once anything else runs on their cores.
export OMP_WAIT_POLICY ?= PASSIVE

# Without compiled files every start of torch takes three times as long.
unexport PYTHONDONTWRITEBYTECODE

.DELETE_ON_ERROR:
.PHONY: help course lab test assets weights ablations neighbours lesions bench

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / {printf "make %-10s %s\n", $$1, $$2}' Makefile

course: .assets-ok ## execute every notebook, offline, into runs/course
	$(PY) -m alden_lite course --out runs/course

lab: .assets-ok ## open copies of the notebooks in JupyterLab: runs/lab, yours to change, never overwritten
	$(PY) -m alden_lite notebooks runs/lab --missing
	$(PY) -m jupyter lab runs/lab --LabApp.app_settings_dir="$(CURDIR)/.jupyter"

test: .assets-ok ## style, types and tests
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy
	$(PY) -m mypy data_scripts
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(PY) -m pytest -n $(JOBS) --durations=10

assets: $(INSTALLED) ## fetch the sample CT and the network weights, or verify them
	$(PY) -m alden_lite assets
	@touch .assets-ok

weights: .assets-ok ## train the shipped generators again; VOLUMES=folder of the development patients
	@$(HAVE_PATIENTS)
	$(TRAIN) --out runs/weights/base --export runs/weights/base.safetensors \
		--set steps=24000 adversarial_weight=0 contrastive_weight=0 learning_rate=8e-4 'betas=[0.9,0.999]' \
		warmup=300 reuse=1 average=0.999 clip=0.02 precision=bf16-mixed keep=0
	$(TRAIN) --out runs/weights/l1 --export runs/weights/l1.safetensors \
		--set $(FURTHER) adversarial_weight=0 contrastive_weight=0 keep=0
	$(TRAIN) --out runs/weights/alden --export runs/weights/alden.safetensors \
		--set $(FURTHER) warm_keep=0.15
	$(TRAIN) --out runs/weights/gan --half --export runs/weights/gan.safetensors \
		--set $(FURTHER) warm_keep=0.15 contrastive_weight=0 anatomy=false
	$(TRAIN) --out runs/weights/aad --half --export runs/weights/aad.safetensors \
		--set $(FURTHER) warm_keep=0.15 contrastive_weight=0
	$(TRAIN) --out runs/weights/scl --half --export runs/weights/scl.safetensors \
		--set $(FURTHER) warm_keep=0.15 adversarial_weight=0
	$(PY) -m alden_lite.evaluation.segmenter_training --out runs/weights/segmenter.safetensors
	for name in l1 alden gan aad scl segmenter; do cp "runs/weights/$$name.safetensors" alden_lite/weights/; done

ablations: .assets-ok ## train and compare the variations of chapter 10, or go on with them; VOLUMES as for weights
	@$(HAVE_PATIENTS)
	$(PY) benchmarks/ablations.py --volumes $(LEARN)

neighbours: .assets-ok ## choose the neighbours' settings, train and compare them, or go on; VOLUMES as for weights
	@$(HAVE_PATIENTS)
	OMP_NUM_THREADS=1 $(PY) benchmarks/neighbours.py --search --volumes $(LEARN)
	OMP_NUM_THREADS=1 $(PY) benchmarks/neighbours.py --volumes $(LEARN) --unseen $(UNSEEN)

lesions: .assets-ok ## scan phantoms, denoise and look for lesions for chapter 09, or go on with it
	OMP_NUM_THREADS=1 $(PY) benchmarks/detectability.py

bench: .assets-ok ## the tables of benchmarks/, but for those that have a word of their own above
	@set -e; for script in $(filter-out $(addprefix benchmarks/,ablations.py neighbours.py detectability.py),$(wildcard benchmarks/*.py)); do echo "$$script"; $(PY) "$$script"; done

.assets-ok: alden_lite/data/assets.py alden_lite/data/convert.py $(INSTALLED)
	$(PY) -m alden_lite assets
	@touch $@

$(INSTALLED): pyproject.toml constraints.txt
	@$(PY) -c '$(RIGHT)' 2>/dev/null || { \
		python="$(PYTHON)"; \
		"$$python" -c '$(RIGHT)' 2>/dev/null || { \
			echo "Python 3.11, 3.12, 3.13 or 3.14 is needed; tried $${python:-python3.12 to 3.14, python3.11, python3}." \
				"Install one, or name it: make PYTHON=/path/to/python3.12" >&2; exit 1; }; \
		echo "making .venv with $$("$$python" --version); torch and the rest take up to 6 GB"; \
		"$$python" -m venv --clear .venv || { rm -rf .venv; exit 1; }; }
	$(PY) -m pip install --compile -c constraints.txt -e '.[dev]'
	@touch $@
