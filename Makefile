# The commands: `make run`, `make test`, `make test-long`, `make chaos`, `make bench` and `make fuzz`.
# They fetch what they need on first use.

.PHONY: run test test-long chaos bench fuzz lint better-auth openapi-tools tools test-tools

# The stack on this machine: Kafka, ClickHouse and the audit log, behind one address.
run: tools
	cargo build --package audit-local
	exec target/debug/audit-local up

# Everything, on a real Kafka, the real ClickHouse engine and a real Better Auth server.
test: tools test-tools better-auth openapi-tools
	cargo build --workspace --bins
	cargo test --workspace --no-fail-fast
	target/debug/audit-chaos --seed 102 --minutes 2.8 >/dev/null
	target/debug/audit-bench --small >/dev/null

# What is too long for every change: a hundred thousand random filters against their second telling.
test-long: tools
	cargo build --workspace --bins
	AUDIT_FILTER_CASES=100000 cargo test --package audit-query-api --test reader -- any_filter --nocapture

# Harm to the whole stack by the schedule of SEED, for MINUTES; one JSON document on stdout. The
# profile is that of the tests: its checks of arithmetic stay in, and what is slow is not ours.
MINUTES ?= 5
SEED ?= 1
chaos: tools
	cargo build --workspace --bins
	target/debug/audit-chaos --seed $(SEED) --minutes $(MINUTES)

# The numbers of this machine: one JSON document on stdout, a table on stderr. PART names one part or
# several, and FLAGS change their sizes; `target/release/audit-bench --help` tells both.
PART ?=
FLAGS ?=
bench: tools
	@cargo build --release --workspace --bins
	@target/release/audit-bench $(PART) $(FLAGS)

# A million arbitrary inputs each for what reads foreign bytes: the spool, bodies of requests, and files.
fuzz:
	PROPTEST_CASES=1000000 cargo test --release --package audit-producer --package audit-ingest \
		--package audit-consumer --lib -- arbitrary_bytes arbitrary_bodies arbitrary_harm arbitrary_documents

# What CI checks beside the tests.
lint:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps
	cargo deny check bans licenses sources

# The Better Auth server that the tests use as a client.
better-auth: tests/better-auth/node_modules/.package-lock.json

tests/better-auth/node_modules/.package-lock.json: tests/better-auth/package-lock.json
	cd tests/better-auth && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

# What reads the document of the query API in the tests: a generator of clients, the driver of a
# browser, and a fuzzer in an environment of its own, named as `python_of_schemathesis()`
# in tests/e2e/openapi.rs names it.
SCHEMATHESIS := .cache/schemathesis-$(shell sha256sum tests/openapi/requirements.txt | cut -c 1-16)

openapi-tools: tests/openapi/node_modules/.package-lock.json $(SCHEMATHESIS)/bin/schemathesis

tests/openapi/node_modules/.package-lock.json: tests/openapi/package-lock.json
	cd tests/openapi && npm ci --ignore-scripts --no-audit --no-fund
	touch $@

$(SCHEMATHESIS)/bin/schemathesis: tests/openapi/requirements.txt
	python3 -m venv $(SCHEMATHESIS)
	$(SCHEMATHESIS)/bin/pip install --quiet --require-hashes --only-binary :all: --requirement $<
	touch $@

# One line per missing tool, and how to get it; `test-tools` are those that only the tests need.
NEED := missing=0; \
	need() { what=$$1; get=$$2; shift 2; "$$@" >/dev/null 2>&1 || { echo "$$what is missing: $$get" >&2; missing=1; }; };

tools:
	@$(NEED) \
	need "Rust" "see https://rustup.rs" cargo --version; \
	need "a C compiler" "apt-get install build-essential" cc --version; \
	need "OpenSSL's headers" "apt-get install pkg-config libssl-dev" pkg-config --exists openssl; \
	need "JDK 17" "apt-get install openjdk-17-jdk-headless" java -version; \
	need "Maven" "apt-get install maven" mvn --version; \
	need "Node 20" "see https://nodejs.org" node -e 'process.exit(+(parseInt(process.versions.node) < 20))'; \
	need "npm" "apt-get install npm" npm --version; \
	exit $$missing

test-tools:
	@$(NEED) \
	need "Python 3.11" "apt-get install python3 python3-venv" \
		python3 -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))'; \
	need "Chromium" "apt-get install chromium" chromium --version; \
	exit $$missing
