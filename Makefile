# make demo and make test are the two commands: each sets up what it needs, once.

python = .venv/bin/python
ready = .venv/ready
compiled = .venv/compiled

.PHONY: demo test lint lock bench fuzz soak compiled interpreted clean

demo: $(ready)
	@$(python) -m tests.support.engine
	@$(python) -m gateway demo $(ARGS)

test: $(ready)
	@$(python) -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(ready)
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy

# Measured is what is delivered: the compiled gateway, where there is a compiler.
bench: $(ready)
	@! command -v cc >/dev/null || $(MAKE) --no-print-directory compiled
	@$(python) -m tests.bench $(ARGS)

fuzz: $(ready)
	@$(python) -m tests.support.engine
	@$(python) -m pytest -n 2 --hypothesis-profile=fuzz $(properties) $(ARGS)
	@$(python) -m tests.fuzz --seconds $(SECONDS)

# Parsers, rules, schedule and pool, with twenty thousand fresh examples of each property; then as
# long as one likes of bytes for whoever reads some (tests/fuzz/README.md).
properties = tests/dialects/test_map.py tests/test_headers.py tests/test_target.py \
	tests/test_bodies.py tests/planning tests/templates tests/test_execution.py tests/upstream \
	tests/fuzz
SECONDS = 60

soak: $(ready)
	@$(python) -m tests.support.engine
	@$(python) -m tests.soak $(ARGS)

# Everything from the lock, every file checked by its hash; the project itself as it lies here.
$(ready): requirements-dev.lock pyproject.toml .ci/setup
	@.ci/setup
	@touch $@

# What runs for every subrequest as a C extension beside its source, and not so any more. Python
# takes the extension where there is one: after an edit it is compiled again, or removed.
compiled: $(compiled)

interpreted:
	rm -f $(compiled) *__mypyc.*.so
	find gateway -name '*.so' -delete

$(compiled): $(ready) pyproject.toml $(shell find gateway -name '*.py')
	@.ci/compile

# New versions of what pyproject.toml asks for. What runs has the versions that were tested.
compile = uv pip compile pyproject.toml --quiet --upgrade --universal --python-version 3.11 \
	--generate-hashes --no-header --no-emit-index-url --no-emit-find-links

lock:
	$(compile) --all-extras --output-file requirements-dev.lock
	$(compile) --extra truto --extra otel --constraint requirements-dev.lock --output-file requirements.lock

clean: interpreted
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
