# make test    everything, race detector on, on the in-process server and on real ZooKeepers;
#              and without it the whole fault sweep and lines of a thousand
# make prove   the proofs of the lease and of the election (proof/README.md); make prove-long: larger models, too
# make lint    formatting and linters, of pinned versions; vet for every platform of PLATFORMS
# make fuzz    each fuzz target for FUZZTIME
# make bench   beside the barest recipe, Curator and kazoo, the library's own benchmarks, and the long soak: writes the
#              tables of docs/performance.md and docs/performance.svg
# make bench-short  the comparison for few candidates, in less than a minute; writes nothing
# make chaos   CHAOS_FAULTS faults on a real ensemble, half an hour; writes docs/chaos.md and docs/chaos.svg;
#              ZOOKEEPER=3.9 chooses the release, and docs/chaos-3.9.md
# make chaos-guard  the faults again, on candidates that have a guard
# make chaos-short  CHAOS_DURATION of each, for CI
# make guard-deaths  every way to die of a leader with a guard, fifty times each: to the next OnWin (docs/performance.md)
# make man     cmd/zkelect/zkelect.1, the manual page, from the help
# make tools   only installs the linters

GO ?= go
FUZZTIME ?= 30s
TESTFLAGS ?=

GOLANGCI_LINT_VERSION = v2.15.0
STATICCHECK_VERSION   = v0.8.2
GOFUMPT_VERSION       = v0.12.0

BIN = $(CURDIR)/bin
GOLANGCI_LINT = $(BIN)/golangci-lint-$(GOLANGCI_LINT_VERSION)
STATICCHECK   = $(BIN)/staticcheck-$(STATICCHECK_VERSION)
GOFUMPT       = $(BIN)/gofumpt-$(GOFUMPT_VERSION)

# The modules within this one, which ./... leaves out; go.work makes all of them one workspace.
MODULES = $(patsubst %/go.mod,%,$(wildcard contrib/*/go.mod cmd/*/go.mod))

.DEFAULT_GOAL = test

# Besides the ZooKeeper that the system has, 3.8, a directory of this project's own holds 3.9. Without a network it cannot
# be had: then its tests are skipped, but never where ELECTION_REQUIRE_ZOOKEEPER is set from outside, as in CI. So it is
# with the clients of npm.
ZOOKEEPER_39 = $(CURDIR)/.cache/zookeeper-3.9
NPM_CLIENTS = $(CURDIR)/.cache/npm-clients
REAL = ELECTION_REQUIRE_ZOOKEEPER=1 ELECTION_ZOOKEEPER_HOMES=$(ZOOKEEPER_39) \
	ELECTION_WITHOUT_ZOOKEEPER=$$([ -e $(ZOOKEEPER_39)/complete ] || echo 3.9) \
	ELECTION_NPM_CLIENTS=$$([ -e $(NPM_CLIENTS)/complete ] && echo $(NPM_CLIENTS) || echo none)

.PHONY: deps
deps:
	@scripts/install-test-deps $(ZOOKEEPER_39) $(NPM_CLIENTS)
	@scripts/install-checkers $(CURDIR)/.cache/checkers

# The tests of zkelect wait more than they work: several at a time. Those of chaos start some fifty processes, and keep the
# machine busy: beside them the leaders of other tests would lose their leases.
.PHONY: test
test: deps
	$(REAL) $(GO) test -race -count=1 -timeout 40m $(TESTFLAGS) $$($(GO) list ./... | grep -v /proof/chaos)
	$(REAL) $(GO) test -race -count=1 -timeout 40m $(TESTFLAGS) ./proof/chaos/...
	$(GO) test -count=1 -run '^TestSweep$$|^TestBudgetSeries$$|^TestBudgetFailover$$' .
	@set -e; for module in $(MODULES); do echo "in $$module:"; (cd $$module && $(REAL) $(GO) test -race -count=1 -timeout 40m -parallel 6 $(TESTFLAGS) ./...); done

# That everything compiles there, tests included, and that vet has nothing against it.
PLATFORMS = windows/amd64 darwin/arm64 freebsd/amd64 linux/386 linux/arm

.PHONY: vet-platforms
vet-platforms:
	@set -e; for module in . $(MODULES); do for platform in $(PLATFORMS); do echo "vet $$module on $$platform"; \
		(cd $$module && GOOS=$${platform%/*} GOARCH=$${platform#*/} $(GO) vet ./...); done; done

.PHONY: lint
lint: tools vet-platforms
	@unformatted=$$($(GOFUMPT) -l .); if [ -n "$$unformatted" ]; then echo "gofumpt would change:"; echo "$$unformatted"; exit 1; fi
	scripts/tidy $(GO) -diff
	$(GO) vet ./...
	$(STATICCHECK) ./...
	$(GOLANGCI_LINT) run ./...
	@set -e; for module in $(MODULES); do echo "in $$module:"; (cd $$module && $(CURDIR)/scripts/tidy $(GO) -diff && $(GO) vet ./... && $(STATICCHECK) ./... && $(GOLANGCI_LINT) run ./...); done

# Go runs one fuzz target of one package at a time.
.PHONY: fuzz
fuzz:
	@scripts/fuzz "$(GO)" "$(FUZZTIME)"

SWEEP_PAIRS ?= -1
SCHEDULES ?= 100000
SIMULATE_FOR ?= 2m
SIMULATE_FIRST ?= $(shell date +%s)00000

.PHONY: sweep
sweep:
	$(GO) test -count=1 -v -timeout 24h -run '^TestSweep$$' . -sweep.pairs=$(SWEEP_PAIRS)

# New seeds each time: what fails prints its seed, and that replays.
.PHONY: simulate
simulate:
	$(GO) test -count=1 -v -timeout 24h -run '^TestSimulate$$' . -simulate.n=$(SCHEDULES) -simulate.first=$(SIMULATE_FIRST)
	$(GO) test -count=1 -v -timeout 24h -run '^TestSimulateCalls$$' . -simulate.n=$(SCHEDULES) -simulate.first=$(SIMULATE_FIRST)

.PHONY: simulate-short
simulate-short:
	$(GO) test -count=1 -v -timeout 24h -run '^TestSimulate$$|^TestSimulateCalls$$' . -simulate.for=$(SIMULATE_FOR) -simulate.first=$(SIMULATE_FIRST)

# The models are checked by as many verifiers at a time as there are processors, with at most 1.8 GB each (8 GB in the
# long form: PROVE=1 runs one at a time).
PROVE ?= $(shell nproc)
PROVER = $(GO) test -count=1 -v -timeout 6h -parallel $(PROVE) ./proof

.PHONY: prove
prove: deps
	$(PROVER) -prove=short

.PHONY: prove-long
prove-long: deps
	$(PROVER) -prove=long

.PHONY: mutations
mutations: MUTATIONS ?= all
mutations:
	$(GO) test -count=1 -v -timeout 6h -run '^TestMutations$$' ./proof/mutations -mutations=$(MUTATIONS) -mutations.table=$(CURDIR)/docs/mutations.md $(MUTATIONSFLAGS)

.PHONY: mutations-short
mutations-short:
	$(GO) test -count=1 -v -timeout 30m -run '^TestMutations$$' ./proof/mutations -mutations=ci

ZOOKEEPER ?= 3.8
BENCH = $(REAL) ELECTION_ZOOKEEPER_RELEASE=$(ZOOKEEPER) $(GO) test -count=1 -v -timeout 90m ./bench

# The times want the machine for themselves. BENCHFLAGS=-bench.contest leaves out the library's own benchmarks.
.PHONY: bench
bench: deps
	$(BENCH) -run '^TestBench$$' -bench.report=$(CURDIR)/docs $(BENCHFLAGS)

BENCH_NS ?= 2,10

.PHONY: bench-short
bench-short: deps
	$(BENCH) -run '^TestShort$$' -bench.short -bench.ns=$(BENCH_NS)

CHAOS_FAULTS ?= 220
CHAOS_DURATION ?= 1m30s
CHAOS = $(REAL) ELECTION_ZOOKEEPER_RELEASE=$(ZOOKEEPER) $(GO) test -count=1 -v -timeout 90m ./proof/chaos

# These measure time, so they want the machine for themselves.
.PHONY: chaos
chaos: deps
	$(CHAOS) -run 'TestChaos|TestFollowerCutOff|TestStoppedLeader|TestKilledLeader|TestKilledWhileCutOff|TestClientsOfObservers' -chaos.faults=$(CHAOS_FAULTS) -chaos.rolls=5 -chaos.cuts=3 -chaos.kills=3 -chaos.peers -chaos.stops=20 -chaos.observers=4 -chaos.report=$(CURDIR)/docs

.PHONY: chaos-short
chaos-short: deps
	$(CHAOS) -run 'TestChaos|TestKilledWhileCutOff' -chaos.duration=$(CHAOS_DURATION) -chaos.cuts=2
	$(CHAOS) -run 'TestChaos|TestKilledLeader' -chaos.duration=$(CHAOS_DURATION) -chaos.guard -chaos.rolls=0

# The same faults on candidates that have a guard each.
.PHONY: chaos-guard
chaos-guard: deps
	$(CHAOS) -run TestChaos -chaos.faults=$(CHAOS_FAULTS) -chaos.guard -chaos.rolls=0

# Every way to die, fifty times each, on three real servers: to the next OnWin. An hour, or the kinds that
# DEATHS says, as in make guard-deaths DEATHS='kill_-9|panic'.
DEATHS ?= .

.PHONY: guard-deaths
guard-deaths: deps
	$(REAL) $(GO) test -count=1 -v -timeout 2h -run '^TestSuccession$$/$(DEATHS)' ./guard -guard.long

# The manual page, of the command's own help.
.PHONY: man
man:
	@$(GO) run ./cmd/zkelect man >cmd/zkelect/zkelect.1.new
	@mv cmd/zkelect/zkelect.1.new cmd/zkelect/zkelect.1

.PHONY: tools
tools: $(GOLANGCI_LINT) $(STATICCHECK) $(GOFUMPT)

# $(call install,PACKAGE@VERSION) builds the tool beside its target, whose name has the version: a new version is a new
# file, and never a stale tool. The tools' dependencies stay out of go.mod.
define install
	@mkdir -p $(BIN)
	GOBIN=$(BIN)/.install-$(@F) $(GO) install $(1)
	@mv $(BIN)/.install-$(@F)/* $@ && rmdir $(BIN)/.install-$(@F)
endef

$(GOLANGCI_LINT):
	$(call install,github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_LINT_VERSION))

$(STATICCHECK):
	$(call install,honnef.co/go/tools/cmd/staticcheck@$(STATICCHECK_VERSION))

$(GOFUMPT):
	$(call install,mvdan.cc/gofumpt@$(GOFUMPT_VERSION))
