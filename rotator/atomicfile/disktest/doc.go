// Package disktest gives tests disks of their own: small, full, read-only, or mounted on a single
// file. It is for Linux, and for tests only.
package disktest
