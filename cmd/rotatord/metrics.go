package main

import (
	"context"
	"time"

	"github.com/rotatord/rotatord/cmd/rotatord/config"
	"github.com/rotatord/rotatord/rotator"
	"github.com/rotatord/rotatord/rotator/monitor"
	"github.com/rotatord/rotatord/rotator/sitegpt"
	"github.com/rotatord/rotatord/rotator/store"
	"github.com/rotatord/rotatord/sinks"
)

// all tells every listener, one after the other.
func all(listeners ...func([]rotator.Event)) func([]rotator.Event) {
	return func(events []rotator.Event) {
		for _, tell := range listeners {
			tell(events)
		}
	}
}

// newMetrics makes what a daemon shows, or once writes to a file.
func (b *house) newMetrics(kind store.HolderKind) *monitor.Metrics {
	operations, outcomes := sinks.VaultRequests()
	return monitor.NewMetrics(monitor.MetricsConfig{
		Version: buildVersion(), View: b.scraped, Log: b.log, Once: kind != store.Daemon,
		APIOperations: sitegpt.Operations(), APIOutcomes: sitegpt.Outcomes(),
		VaultOperations: operations, VaultOutcomes: outcomes,
	})
}

// scraped looks at the state for a scrape: in memory, but for what the state notes beside the records.
func (b *house) scraped() monitor.View {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	report, err := b.report(ctx)
	if err != nil {
		b.log.Debug("a scrape does not see whether the configuration is refused", "error", err)
	}
	report.Problems = append(report.Problems, b.unheard(ctx)...)
	found, _, err := kept[rotator.Found](ctx, b.store.Reader, metaSweep)
	if err != nil {
		b.log.Debug("a scrape does not see what the list showed", "error", err)
	}
	now := b.a.now()
	c, stands := b.inForce()
	entries, records := b.engine.Snapshot()
	v := monitor.View{
		Report: report, Entries: entries, Records: records, Outages: b.engine.Outages(), Found: found, Interval: b.interval,
		LastPass: now, Reloaded: now, Accepted: stands == nil, Stands: stands != nil,
	}
	v.Management, _ = ownExpires(c, records, b.ownSeen(ctx), now)
	v.Offset, v.Offsets = b.client.Offset()
	if b.loop != nil {
		v.LastPass, v.Lag = b.loop.Moved()
	}
	if t := b.reloads.Load(); t != nil {
		v.Reloaded, v.Accepted = t.Ended, t.Error == ""
	}
	return v
}

// vaults names the connections that the sinks of c use.
func vaults(c *config.Config) []string {
	var names []string
	for i := range c.Tokens {
		for _, s := range c.Tokens[i].Sinks {
			if s.Spec.VaultKV != nil {
				names = append(names, s.Spec.VaultKV.Vault)
			}
		}
	}
	return names
}
