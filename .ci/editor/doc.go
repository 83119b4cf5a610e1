// Package editor tries rotation.yaml's schema in what editors run: the real yaml-language-server.
package editor
