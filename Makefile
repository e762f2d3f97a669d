# Two commands matter: `make book` builds the book, `make test` checks everything.
# Both set up .venv by themselves. `make help` lists the rest.

PYTHON    ?= python3
VENV      := .venv
BIN       := $(VENV)/bin
RUN       := $(BIN)/python
INSTALLED := $(VENV)/.installed
HTML      := book/_build/html

# What the labs of book/lab compute with.
LAB_MODELS := tetrominoes tetrominoes_tiling tetrominoes_collapse tetrominoes_early tetrominoes_alone shapes \
              multi_dsprites adaptive_shapes svq_draft_shapes clevr10_sets

# Two processes, one thread each; UMAP's compiler, which has a number of its own, would set PyTorch's too. What is in one
# file, a chapter for example, stays in one process; files begin in the order in which they are given (else those of few
# tests come last, and some of them are the longest). What Python has compiled is kept, whatever the shell says: the
# tests start it some hundred times.
PYTEST    := PYTHONDONTWRITEBYTECODE= OMP_NUM_THREADS=1 NUMBA_NUM_THREADS=1 PYTHONHASHSEED=0 $(RUN) \
             -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# What looks at the built book.
SITE := tests/test_colab.py tests/test_pages.py tests/test_site.py $(wildcard tests/test_labs*.py) tests/test_reference.py

# The other tests. Those files that take longest begin, or one process waits for another at the end.
LONGEST := $(patsubst %,tests/unit/test_%.py,training resume compiled sweep from_elsewhere your_own adaptive zoo_page \
             set_prediction slot_attention prior speedrun cli zoo)
UNIT := $(LONGEST) $(filter-out $(LONGEST) $(SITE),$(sort $(shell find tests -name 'test_*.py')))

.PHONY: help book test lab labs execute stamp lint test-unit test-chapters test-site bench gpu clean
.NOTPARALLEL:

help:
	@echo 'make book      build the book into $(HTML)'
	@echo 'make test      lint, unit tests, chapters against their stored outputs, book, built pages'
	@echo 'make lab       open the chapters in JupyterLab'
	@echo 'make labs      everything the live page loads, from the shipped models and book/lab (needs node)'
	@echo 'make execute   run all chapters in place and measure their time (or one: CHAPTER=02)'
	@echo 'make stamp     write the setup cell, with the address in _config.yml, into every chapter'
	@echo 'make bench     measure slotlib against installable peers'
	@echo 'make gpu       GPU tests and measurements, where there is a CUDA device; at most eight minutes'
	@echo 'make lint      ruff, pyright, and the stamp of the setup cells'
	@echo 'make clean     remove what was built (not .venv)'

# --- environment ------------------------------------------------------------------------------
# The stamp file is newer than the two files that say what is installed, so later runs skip this.
$(INSTALLED): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo 'Python 3.11 or newer is needed. Name another one with: make PYTHON=python3.12 ...'; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { \
	  echo 'This Python has no venv module. On Debian and Ubuntu: apt-get install python3-venv'; exit 1; }
	@$(RUN) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@echo 'Installing into $(VENV) (a few minutes the first time) ...'
	@$(RUN) -m pip install --quiet --disable-pip-version-check -r requirements.txt
	@$(RUN) -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

# --- the book ---------------------------------------------------------------------------------
# --all: pages are rebuilt even when unchanged, else a warning would be an error only once.
book: $(INSTALLED)
	$(BIN)/jupyter-book build . --path-output book --all --nitpick --warningiserror --keep-going --quiet
	@echo
	@echo 'The book is in $(HTML). Open $(HTML)/index.html in a browser, or serve it with'
	@echo '  $(RUN) -m http.server --directory $(HTML) 8000    then http://localhost:8000'

lab: $(INSTALLED)
	$(BIN)/jupyter lab --ServerApp.root_dir=. --LabApp.default_url=/lab/tree/chapters

# Weights and golden values from the shipped models, bundles from the sources.
labs: $(INSTALLED)
	$(BIN)/slotlib export lab $(LAB_MODELS) --out book/assets/lab/weights
	$(RUN) book/lab/golden.py
	$(RUN) book/lab/fates.py
	$(RUN) book/lab/golden_pure.py
	$(RUN) book/lab/stargazer.py
	$(RUN) book/lab/describe.py
	cd book/lab && npm ci --no-fund --no-audit && npm run build

execute: $(INSTALLED) stamp
	$(RUN) book/tools/execute.py $(CHAPTER)

stamp: $(INSTALLED)
	$(RUN) book/tools/stamp.py

bench: $(INSTALLED)
	$(RUN) -m benchmarks

gpu: $(INSTALLED)
	$(RUN) -m benchmarks.gpu

# --- tests ------------------------------------------------------------------------------------
test: lint test-unit test-chapters book test-site
	@echo
	@echo 'All checks passed.'

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright
	$(RUN) book/tools/stamp.py --check

# Memory is kept once it is taken (where the C library is GNU's): as tensors come and go, the system would hand the same
# pages out again and again.
test-unit: $(INSTALLED)
	MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=4294967296 $(PYTEST) -p no:nbval $(UNIT)

# nbval runs every notebook and compares each output with the stored one.
test-chapters: $(INSTALLED)
	$(PYTEST) chapters $(wildcard book/*.ipynb) --nbval --nbval-current-env --nbval-cell-timeout 300 \
	  --nbval-sanitize-with tests/nbval_sanitize.cfg

test-site: $(INSTALLED)
	$(PYTEST) -p no:nbval $(SITE)

clean:
	rm -rf book/_build .pytest_cache .ruff_cache .hypothesis
