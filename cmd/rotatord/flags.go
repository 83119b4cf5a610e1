package main

import (
	"fmt"
	"time"

	"github.com/rotatord/rotatord/rotator/field"
)

// durationFlag is a duration on the command line, with the units of rotation.yaml.
type durationFlag time.Duration

// Set implements pflag.Value.
func (d *durationFlag) Set(s string) error {
	v, err := field.ParseDuration(s)
	*d = durationFlag(v)
	return err
}

func (d *durationFlag) String() string {
	if *d == 0 {
		return ""
	}
	return field.FormatDuration(time.Duration(*d))
}

// Type implements pflag.Value.
func (*durationFlag) Type() string { return "duration" }

// parseInstant reads a point in time, or, where there is something to count from, a length of time.
// What names no zone is meant in the machine's own.
func parseInstant(text string, from time.Time) (time.Time, error) {
	for _, layout := range []string{
		time.RFC3339, "2006-01-02 15:04:05", "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly,
	} {
		if t, err := time.ParseInLocation(layout, text, time.Local); err == nil {
			return t, nil
		}
	}
	const instants = "an instant (2026-12-24T18:00:00Z, 2026-12-24 18:00, 2026-12-24)"
	if from.IsZero() {
		return time.Time{}, fmt.Errorf("%q is not %s", text, instants)
	}
	if d, err := field.ParseDuration(text); err == nil {
		return from.Add(d), nil
	}
	return time.Time{}, fmt.Errorf("%q is neither %s nor a duration (8h, 5d)", text, instants)
}
