# On a fresh machine with Python 3.11 or newer, git and make: `make lab`.

python = .venv/bin/python
first = $(or $(firstword $(sort $(wildcard notebooks/[0-9]*.ipynb))),notebooks)
on_screen = $(or $(filter-out Linux,$(shell uname)),$(DISPLAY),$(WAYLAND_DISPLAY),$(BROWSER))

# JupyterLab refuses to run as root unless told to, and without a screen there is no browser to open.
lab_options = $(if $(filter 0,$(shell id -u)),--allow-root) $(if $(on_screen),,--no-browser)

.PHONY: help lab test portable oldest wheel fuzz notebooks bench compare data release grade csv feedback lock clean

help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' Makefile

lab: ## set up .venv and open JupyterLab on the first notebook
	@./install.sh lab
	@$(python) postBuild
	@$(python) -m jupyterlab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/$(first) $(lab_options)

test: ## set up .venv and run every check of the project
	@./install.sh test
	$(python) -m ruff check .
	$(python) -m ruff format --check .
	@# One thread each: two processes on two cores, and threads that wait for each other are slow.
	OMP_NUM_THREADS=1 $(python) -m pytest -n 2 --dist loadgroup

portable: ## execute notebooks and numeric tests as other machines would; MACHINES="AVX2 busy": some (an hour for all)
	@./install.sh test
	@$(python) tests/portable.py $(MACHINES)

oldest: ## run the instrument's and the series' tests with the oldest versions that pyproject.toml allows
	@./install.sh lock
	$(python) -m uv venv --quiet --clear --python $(python) .venv-oldest
	$(python) -m uv pip install --quiet --python .venv-oldest/bin/python --resolution lowest-direct --editable ".[test]"
	OMP_NUM_THREADS=1 .venv-oldest/bin/python -m pytest -n 2 tests/instrument tests/series

wheel: ## build the wheel, and run the instrument's tests where nothing else of this project is installed
	@./install.sh lock
	@rm -rf .venv-wheel && $(python) -m uv venv --quiet --clear --python $(python) .venv-wheel
	$(python) -m uv build --quiet --wheel --out-dir .venv-wheel/dist
	$(python) -m uv pip install --quiet --python .venv-wheel/bin/python .venv-wheel/dist/*.whl pytest hypothesis einops
	@cp -R tests/instrument .venv-wheel/tests
	cd .venv-wheel/tests && OMP_NUM_THREADS=1 ../bin/python -m pytest -q -p no:cacheprovider .

fuzz: ## hold the receptive-field engine against autograd on 10,000 new random networks
	@./install.sh test
	RANDOM_NETWORKS=10000 OMP_NUM_THREADS=1 $(python) -m pytest tests/instrument/test_receptive_field.py -k random

notebooks: ## execute all notebooks, or NOTEBOOKS="notebooks/01_…", and store their outputs
	@./install.sh test
	@$(python) -m experiments.notebooks $(NOTEBOOKS)

bench: ## measure, one Markdown table per file in benchmarks/
	@./install.sh test
	@set -e; for file in benchmarks/*.py; do $(python) $$file; echo; done

compare: ## measure all networks on the test micrographs; table and figure go into the README
	@./install.sh lab
	@$(python) -m experiments.comparison

data: ## make the micrographs of data/ again
	@./install.sh lab
	@$(python) -m experiments.tissue data/micrographs

# For teachers. Without ASSIGNMENT=01_patches: all of them. COURSE: the folder that holds them, and all the work.
course = --course $(or $(COURSE),notebooks/assignments) $(if $(SUBMITTED),--submitted $(SUBMITTED))

release: ## make the students' version of the assignments
	@./install.sh teach
	@$(python) -m grading release $(ASSIGNMENT) $(course)

grade: ## grade what was handed in for ASSIGNMENT="01_…", or a folder of notebooks: SUBMITTED="…"
	@./install.sh teach
	@$(python) -m grading grade $(ASSIGNMENT) $(course)

csv: ## write all grades into one table, which Canvas can read
	@./install.sh teach
	@$(python) -m grading csv $(course)

feedback: ## write a page for each submission
	@./install.sh teach
	@$(python) -m grading feedback $(ASSIGNMENT) $(course)

lock: ## bring requirements.lock up to pyproject.toml (UPGRADE=--upgrade: everything to its newest)
	@./install.sh lock
	@cp requirements.lock .venv/lock
	@$(python) -m uv pip compile --quiet --universal --python-version 3.11 --all-extras \
	    --no-annotate --no-header $(UPGRADE) --output-file .venv/lock pyproject.toml
	@# torch's own metadata pins its CUDA packages, and a CPU-only torch needs none of them.
	@grep -Ev '^(nvidia|cuda|triton)' .venv/lock > requirements.lock

clean: ## remove .venv and the caches
	@rm -rf .venv .venv-oldest .venv-wheel .pytest_cache .ruff_cache *.egg-info
