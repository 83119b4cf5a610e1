package main

import (
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
