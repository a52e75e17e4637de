# evergrant. `make` lists the targets.
.DEFAULT_GOAL := help
SHELL := /bin/sh

CARGO ?= cargo
RUSTC ?= rustc
LD ?= ld
OBJCOPY ?= objcopy
PYTHON ?= python3
NODE ?= node

DESTDIR ?=
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DATADIR ?= $(PREFIX)/share

# The header is the source for both; the tests hold it to Cargo.toml and build.rs.
VERSION := $(shell sed -n 's/^.define EVERGRANT_VERSION "\(.*\)"/\1/p' include/evergrant.h)
ABI := $(shell sed -n 's/^.define EVERGRANT_ABI_VERSION //p' include/evergrant.h)
FUNCTIONS := $(shell sed -n 's/^ *"name": "\(evergrant_.*\)",$$/\1/p' include/evergrant.json)

RELEASE := $(or $(CARGO_TARGET_DIR),target)/release
STAGE := $(CURDIR)/build/stage
STAGED := PREFIX=$(STAGE) DESTDIR= LIBDIR=$(STAGE)/lib INCLUDEDIR=$(STAGE)/include DATADIR=$(STAGE)/share

ifeq ($(shell uname -s),Darwin)
SHARED := libevergrant.dylib
SHARED_ABI := libevergrant.$(ABI).dylib
SHARED_FULL := libevergrant.$(VERSION).dylib
else
SHARED := libevergrant.so
SHARED_ABI := libevergrant.so.$(ABI)
SHARED_FULL := libevergrant.so.$(VERSION)
endif

.PHONY: help
help: ## List the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1 /p' $(MAKEFILE_LIST) | while read -r name text; do printf '%-14s %s\n' "$$name" "$$text"; done

.PHONY: build
build: ## Build the release libraries: target/release/libevergrant.so and build/libevergrant.a
	$(CARGO) build --release
	@$(MAKE) --no-print-directory build/libevergrant.a build/libs-private

# Cargo's archive defines thousands of global names, sqlite3_* among them, that would clash with a host's own. So: one
# object with all that our functions need, in which only their names stay global. (.llvmbc: std's bitcode, unusable once
# merged.)
build/libevergrant.a: $(RELEASE)/libevergrant.a include/evergrant.json
	@mkdir -p build
ifeq ($(shell uname -s),Darwin)
	cp $< $@
else
	$(LD) -r --gc-sections --force-group-allocation $(FUNCTIONS:%=-u %) -o build/evergrant.o $<
	$(OBJCOPY) --strip-debug --remove-section=.llvmbc --remove-section=.llvmcmd \
		--wildcard --keep-global-symbol='evergrant_*' build/evergrant.o
	rm -f $@
	$(AR) rcs $@ build/evergrant.o
	rm build/evergrant.o
endif

# What a program that links the static library needs besides: the standard library's own list.
build/libs-private:
	@mkdir -p build
	echo | $(RUSTC) --crate-type staticlib --print native-static-libs -o build/empty.a - 2>&1 \
		| sed -n 's/.*native-static-libs: //p' > $@
	@rm -f build/empty.a
	@test -s $@ || { rm $@; echo "rustc did not name the libraries"; exit 1; }

# ---- packages

MACHINE ?= $(shell uname -m)

.PHONY: dist
dist: build/venv/packaging/made ## Build the packages for this MACHINE into dist/: wheel, sdist, npm tarballs
	packaging/dist.sh $(MACHINE)

.PHONY: dist-musl
dist-musl: build/venv/packaging/made ## The same, for musl too; its Rust target must be there (`rustup target add`)
	packaging/dist.sh $(MACHINE) musl

build/venv/packaging/made: packaging/requirements.txt
build/venv/packages/made: tests/bindings/requirements.txt
build/venv/dot/made: tests/dot/requirements.txt
build/venv/%/made:
	rm -rf $(@D)
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

# The tests call these rules themselves: tests/oidc/run.sh, tests/real_servers.rs.
tests/oidc/node_modules/made: tests/oidc/package-lock.json
	npm ci --prefix tests/oidc --no-audit --no-fund --loglevel=error
	@touch $@

# ---- the demo

DEMO := $(wildcard bindings/c/examples/demo/*.c)
DEMO_RPATH := $(if $(filter Darwin,$(shell uname -s)),@loader_path,$$ORIGIN)
TEST_SERVER := $(or $(CARGO_TARGET_DIR),target)/debug/evergrant-test-server

.PHONY: demo
demo: demo-program ## See it work, each line checked; with EVERGRANT_CONFIG=my-org.json against your own org
ifndef EVERGRANT_CONFIG
	$(CARGO) build -p evergrant-test-server
	@$(MAKE) --no-print-directory --silent build/demo/node/made
endif
	@EVERGRANT_LIBRARY=$(abspath $(RELEASE))/$(SHARED) PYTHONPATH=$(CURDIR)/bindings/python/src \
		build/demo/demo $(TEST_SERVER) $(PYTHON) $(NODE)

.PHONY: demo-program
demo-program:
	$(CARGO) build --release
	@mkdir -p build/demo
	@ln -sf $(abspath $(RELEASE))/$(SHARED) build/demo/$(SHARED_ABI)
	@$(MAKE) --no-print-directory --silent build/demo/demo

build/demo/demo: $(DEMO) bindings/c/examples/demo/demo.h include/evergrant.h
	$(CC) -std=c99 -O2 -Wall -Wextra -Wpedantic -Werror $(CFLAGS) -Iinclude $(DEMO) build/demo/$(SHARED_ABI) \
		'-Wl,-rpath,$(DEMO_RPATH)' $(LDFLAGS) -o $@

# A program beside the binding and its one dependency; the library is the one above, so no package for the platform.
build/demo/node/made: bindings/node/examples/demo.mjs $(wildcard bindings/node/*.js* bindings/node/lib/*.js)
	@rm -rf $(@D)
	@mkdir -p $(@D)
	@cp $< $(@D)
	@echo '{"private": true}' > $(@D)/package.json
	npm install --prefix $(@D) --install-links --no-audit --no-fund --loglevel=error ./bindings/node
	@touch $@

.PHONY: test-demo
test-demo: ## Test `make demo`, in both of its modes
	$(CARGO) test --quiet --test demo -- --include-ignored

.PHONY: header
header: ## Write include/evergrant.h and include/evergrant.json from the source; review the difference
	EVERGRANT_WRITE_HEADER=1 $(CARGO) test --quiet --test capi committed_header

.PHONY: header-check
header-check: ## Fail if the committed header is not what the source makes (part of `cargo test`)
	$(CARGO) test --quiet --test capi committed_header

.PHONY: install
install: build ## Install libraries, header, table and pkg-config file (DESTDIR, PREFIX, LIBDIR, INCLUDEDIR, DATADIR)
	install -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR) $(DESTDIR)$(DATADIR)/evergrant
	install -m 644 include/evergrant.h $(DESTDIR)$(INCLUDEDIR)
	install -m 644 include/evergrant.json $(DESTDIR)$(DATADIR)/evergrant
	install -m 755 $(RELEASE)/$(SHARED) $(DESTDIR)$(LIBDIR)/$(SHARED_FULL)
	ln -sf $(SHARED_FULL) $(DESTDIR)$(LIBDIR)/$(SHARED_ABI)
	ln -sf $(SHARED_ABI) $(DESTDIR)$(LIBDIR)/$(SHARED)
	install -m 644 build/libevergrant.a $(DESTDIR)$(LIBDIR)
	sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|; s|@INCLUDEDIR@|$(INCLUDEDIR)|; s|@VERSION@|$(VERSION)|' \
		-e "s|@LIBS_PRIVATE@|$$(cat build/libs-private)|" bindings/c/evergrant.pc.in \
		> $(DESTDIR)$(LIBDIR)/pkgconfig/evergrant.pc

.PHONY: uninstall
uninstall: ## Remove what `make install` with the same variables has installed
	rm -f $(addprefix $(DESTDIR)$(LIBDIR)/,$(SHARED) $(SHARED_ABI) $(SHARED_FULL) libevergrant.a pkgconfig/evergrant.pc)
	rm -f $(DESTDIR)$(INCLUDEDIR)/evergrant.h $(DESTDIR)$(DATADIR)/evergrant/evergrant.json
	-rmdir $(DESTDIR)$(DATADIR)/evergrant

.PHONY: test
test: test-setup ## Test everything: the core, the C interface, the packages, real servers, real processes
	$(CARGO) test --workspace
	tests/concurrency.sh
	$(MAKE) --no-print-directory test-c test-demo test-packages test-python test-node test-languages test-machines

.PHONY: check
check: test-setup dist build/venv/packages/made ## Look for what tests do not find: format, lints, types, documentation
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings
	for features in "" postgres redis; do \
		$(CARGO) clippy --quiet --lib --no-default-features --features "$$features" -- -D warnings || exit 1; \
	done
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --no-deps --quiet
	build/venv/packages/bin/ruff check --quiet tests/bindings
	build/venv/packages/bin/ruff format --quiet --check tests/bindings
	bindings/python/test.sh --check
	bindings/node/test.sh check

.PHONY: check-targets
check-targets: ## Type-check for macOS and Windows, if `rustup target add` has them (docs/guarantees.md, "Platforms")
	for target in aarch64-apple-darwin x86_64-pc-windows-gnu; do \
		CC=true AR=true $(CARGO) check --lib --target $$target --target-dir build/check || exit 1; \
	done

.PHONY: test-setup
test-setup: ## Install what the tests need and this machine lacks (Debian, Ubuntu)
	tests/setup.sh

# Against an installation in build/stage, so that installing and the pkg-config file are tested too.
.PHONY: test-c
test-c: test-setup ## Test the C interface: exported symbols, C and C++ programs, sanitizers, valgrind
	$(MAKE) --no-print-directory install $(STAGED)
	$(CARGO) test --quiet --test capi -- --include-ignored
	$(CARGO) build --release --package evergrant-test-server
	PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig tests/with-server.sh tests/c/run.sh $(PROGRAMS)
	PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig tests/c/examples.sh

.PHONY: test-server
test-server:
	$(CARGO) build --quiet --package evergrant-test-server

# What follows tests the packages of dist/, not the source tree.
TEST_PACKAGES := EVERGRANT_TEST_SERVER_PROGRAM=$(abspath $(TEST_SERVER))

.PHONY: test-packages
test-packages: test-setup dist test-server build/venv/packages/made ## Test dist/: contents, installs, one table for all
	$(CARGO) build --release
	$(TEST_PACKAGES) build/venv/packages/bin/python -m pytest tests/bindings

.PHONY: test-python
test-python: test-setup dist test-server ## Test the Python package, installed from its wheel
	$(TEST_PACKAGES) bindings/python/test.sh

.PHONY: test-node
test-node: test-setup dist test-server ## Test the Node packages, installed from their tarballs
	$(TEST_PACKAGES) bindings/node/test.sh

.PHONY: test-languages
test-languages: test-setup dist test-server ## Test C, Python and Node processes on one session, for three minutes
	$(MAKE) --no-print-directory install $(STAGED)
	$(TEST_PACKAGES) PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig env -u PYTHON -u NODE_PROJECT tests/languages/run.sh

.PHONY: test-machines
test-machines: test-setup dist test-server ## Test four machines on one session, undisturbed and in trouble, for four minutes
	$(MAKE) --no-print-directory install $(STAGED)
	for store in postgres redis; do \
		$(TEST_PACKAGES) PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig env -u PYTHON -u NODE_PROJECT \
			tests/machines/run.sh $$store 20 --trouble || exit 1; \
	done

.PHONY: prove
prove: test-setup dist test-server ## Show at length that nothing is lost: every order of steps, 14,000 kills, three languages, four machines; an hour. PARTS=clocks runs one
	$(MAKE) --no-print-directory install $(STAGED)
	$(TEST_PACKAGES) PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig env -u PYTHON -u NODE_PROJECT tests/prove.sh $(PARTS)

.PHONY: bench
bench: dist ## Measure beside peers and print one table; BENCHES="memory size" runs some, BENCH_FULL=1 has a million sessions
	benches/setup.sh
	$(MAKE) --no-print-directory install $(STAGED)
	$(CARGO) build --release --package evergrant-test-server
	PKG_CONFIG_PATH=$(STAGE)/lib/pkgconfig benches/run.sh $(BENCHES)
