# What people type here. Everything else is in .ci/run.

.PHONY: build deb rpm test vault model crash fuzz

build: ## bin/rotatord
	CGO_ENABLED=0 go build -trimpath -o bin/rotatord ./cmd/rotatord

deb rpm: ## packages for a host with systemd, in dist/; ARCH=arm64 for another machine
	@systemd/package/build $@ $(ARCH)

test: ## every test; those of Vault need .ci/vault/build once
	@go test -parallel 6 ./... # more at once than there are processors: many of them wait

vault: ## a real Vault core for the tests of the Vault sink
	@.ci/vault/build

model: ## the property tests, long
	@go test -timeout 30m -run 'NoGap|Expiry|Granted|Replan' ./rotator -rapid.checks=2000
	@go test -timeout 30m -run 'NoGap|Refused' ./rotator/simulate -rapid.checks=400
	@go test -timeout 30m ./rotator/audit -rapid.checks=1000
	@ROTATORD_TEST_PLANS=60 go test -timeout 30m -run PlanIsWhatThenHappens ./cmd/rotatord

CRASHES ?= all
crash: ## SIGKILL before every change to a disk and at every request, and the power cut at every sync; CRASHES=3: at every third
	@cd cmd/rotatord && ROTATORD_TEST_CRASHES=$(CRASHES) go test -count=1 -timeout 30m -parallel 12 -run 'Crash|PowerCut'

fuzz: ## every fuzz target, ten seconds each
	@.ci/fuzz
