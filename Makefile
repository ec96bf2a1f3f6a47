# The commands of a working day. CONTRIBUTING.md explains them.
#
#   make hello   build the release programs and run a real pod (Ctrl-C stops it)
#   make test    everything that has to pass
#   make build && sudo make install

TARGET_DIR := $(or $(CARGO_TARGET_DIR),target)
TRIPLE := $(shell rustc -vV 2>/dev/null | sed -n 's/^host: //p')
RELEASE := $(TARGET_DIR)/$(TRIPLE)/release
# Where Rust has the C library musl (hack/setup adds it), berth-oci is linked with that: it is smaller, and starts without
# the fifty CPUID instructions of glibc, each of which leaves a virtual machine for its host.
MUSL := $(TRIPLE:-gnu=-musl)
OCI_TRIPLE := $(shell test -d "$$(rustc --print target-libdir --target $(MUSL) 2>/dev/null)" && echo $(MUSL) || echo $(TRIPLE))
OCI := $(TARGET_DIR)/$(OCI_TRIPLE)/small/berth-oci
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

# Where `make install` puts things, and beneath which directory, if a package is made of them.
PREFIX := /usr/local
DESTDIR :=
INSTALLED := $(DESTDIR)$(PREFIX)

.PHONY: hello build oci install test setup check fmt lint deny advisories programs tests fuzz engines vm vm-tests vm-boots

hello:
	$(SUDO) hack/setup --hello
	$(MAKE) --no-print-directory build
	$(SUDO) $(RELEASE)/berth run examples/hello.yaml

build: oci
	cargo build --release --package berth
	install $(OCI) $(RELEASE)/berth-oci

# The runtime alone.
oci:
	cargo rustc --profile small --package berth-oci --bin berth-oci --target $(OCI_TRIPLE) \
		-- -C llvm-args=-enable-machine-outliner=always

# What was built, with manual pages, completions and the daemon's units. Root may have no Rust.
BUILT := $(or $(wildcard $(RELEASE)/berth),$(firstword $(wildcard $(TARGET_DIR)/*/release/berth)))
install:
	@test -n "$(BUILT)" || { echo "nothing is built yet: make build" >&2; exit 1; }
	install -D -m 755 $(BUILT) $(INSTALLED)/bin/berth
	install -D -m 755 $(BUILT)-oci $(INSTALLED)/bin/berth-oci
	$(BUILT) man $(INSTALLED)/share/man/man1
	install -d $(addprefix $(INSTALLED)/share/,bash-completion/completions zsh/site-functions fish/vendor_completions.d)
	$(BUILT) completion bash > $(INSTALLED)/share/bash-completion/completions/berth
	$(BUILT) completion zsh > $(INSTALLED)/share/zsh/site-functions/_berth
	$(BUILT) completion fish > $(INSTALLED)/share/fish/vendor_completions.d/berth.fish
	install -d $(INSTALLED)/lib/systemd/system $(INSTALLED)/lib/systemd/user
	sed 's|/usr/local|$(PREFIX)|' hack/berth.service > $(INSTALLED)/lib/systemd/system/berth.service
	sed 's|/usr/local|$(PREFIX)|' hack/berth-user.service > $(INSTALLED)/lib/systemd/user/berth.service

# A virtual machine has one processor's worth of work: what is fuzzed is built beside it, and then another one runs.
test: setup check programs tests engines
	$(MAKE) --no-print-directory --jobs 2 --output-sync=line fuzz vm

# Debian packages and the test runner, if they are missing.
setup:
	hack/setup

check: fmt lint deny

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets -- -D warnings

# Licences and sources of every dependency: deny.toml.
deny:
	cargo deny check licenses bans sources

# Known vulnerabilities. Not part of `check`: it fetches a database, which changes while the code does not.
advisories:
	cargo deny check advisories

# The programs that the black-box tests run, where the tests look for them: beside their own. Together with the tests,
# so that cargo chooses the same features for both and builds every dependency once.
programs:
	cargo build --workspace --bins --tests

# Unit tests, and black-box tests on this machine's kernel. Most of them wait for something: with one test for each
# processor, half of the processors' time would be nobody's.
NEXTEST := cargo nextest run --test-threads $(shell echo $$((2 * $$(nproc))))
tests: programs
	$(NEXTEST) --workspace
ifneq ($(OCI_TRIPLE),$(TRIPLE))
	$(NEXTEST) --package berth-runtime --package berth-oci --package berth-shim --target $(OCI_TRIPLE)
endif

# Readers of input from outside, for a fixed number of executions: no time, so that a run is like another.
fuzz:
	hack/fuzz

# podman, docker and containerd on berth-oci.
engines: programs
	$(SUDO) tests/oci/run --require --runtime $(TARGET_DIR)/$(TRIPLE)/debug/berth-oci

# The tests that need cgroup v2, AppArmor, systemd or a kernel that criu knows, in virtual machines: of the runtime and
# the shim, of whole pods, and of checkpoints.
vm: vm-tests vm-boots
vm-tests:
	hack/vm/test
	hack/vm/pods
vm-boots:
	hack/vm/service
	hack/vm/rootless
	hack/vm/rootless --systemd
	hack/vm/rootless-reboot
	hack/vm/checkpoint
	hack/vm/checkpoint-pods
