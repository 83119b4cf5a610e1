// Package manifests holds the manifests of docs/containers.md against the code of those who will read
// them: compose-go, the validation of the Kubernetes API server, and Nomad's job parser. It is a
// module of its own, so that nothing of it enters the product's go.mod.
package manifests
