// Package browser looks at the daemon's page as people do: in a real browser, with a real daemon
// behind it. It is a module of its own, so that nothing of it enters the product's go.mod.
package browser
