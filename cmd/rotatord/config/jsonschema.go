package config

import _ "embed"

// JSONSchema is what an editor needs to complete and check rotation.yaml: a JSON Schema of draft
// 2020-12. A test makes it from the types that the parser fills and from their comments, and holds
// it to every file that the parser's own tests accept or refuse. What takes more than one look (two
// sinks at one place, the proofs about time) only Load finds.
//
// errorMessage, patternErrorMessage and deprecationMessage, which yaml-language-server knows, let an
// editor say the words of Load. .ci/editor tries that.
//
//go:embed schema.json
var JSONSchema []byte
