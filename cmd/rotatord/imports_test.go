package main

import (
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/rotatord/rotatord/"

// mayImport says which packages of ours a room may know. What is not listed may know none, so a
// new room has to be thought about here. Arrows run one way: from commands to configuration, from
// there to the rooms, and from the rooms to the domain, which knows the standard library only.
var mayImport = map[string][]string{
	"cmd/rotatord": {
		"cmd/rotatord/config", "rotator", "rotator/audit", "rotator/consumers", "rotator/field", "rotator/notify", "rotator/schedule", "rotator/sitegpt",
		"rotator/sitegpt/sandbox", "rotator/management", "rotator/simulate", "rotator/monitor", "rotator/store", "rotator/webhook", "sinks",
	},
	"cmd/rotatord/config":         {"rotator", "rotator/consumers", "rotator/field", "rotator/notify", "rotator/schedule", "rotator/sitegpt", "sinks", "sinks/vaultkv"},
	"cmd/rotatord/crashpoint":     {},
	"rotator":                     {},
	"rotator/audit":               {"rotator", "rotator/field"},
	"rotator/consumers":           {"rotator", "rotator/child", "rotator/field", "rotator/webhook"},
	"rotator/field":               {},
	"rotator/atomicfile":          {},
	"rotator/atomicfile/disktest": {},
	"rotator/child":               {"rotator", "rotator/field"},
	"rotator/management":          {"rotator", "rotator/atomicfile"},
	"rotator/monitor":             {"rotator"},
	"rotator/monitor/promtest":    {},
	"rotator/notify":              {"rotator", "rotator/child", "rotator/field", "rotator/webhook"},
	"rotator/schedule":            {"rotator", "rotator/field"},
	"rotator/sitegpt":             {"rotator", "rotator/field"},
	"rotator/sitegpt/sandbox":     {"rotator", "rotator/sitegpt", "rotator/atomicfile"},
	"rotator/simulate":            {"rotator", "rotator/sitegpt/sandbox"},
	"rotator/store":               {"rotator"},
	"rotator/webhook":             {"rotator", "rotator/field"},
	"sinks":                       {"rotator", "rotator/field", "sinks/command", "sinks/envfile", "sinks/file", "sinks/vaultkv"},
	"sinks/command":               {"rotator", "rotator/field", "rotator/child"},
	"sinks/envfile":               {"rotator", "rotator/field", "rotator/atomicfile"},
	"sinks/file":                  {"rotator", "rotator/field", "rotator/atomicfile"},
	"sinks/vaultkv":               {"rotator", "rotator/child", "rotator/field"},
	"sinks/vaultkv/vaulttest":     {},
	"sinks/sinktest":              {"rotator"},
}

// onlyIn names the one room that may know a library.
var onlyIn = map[string]string{
	"github.com/robfig/cron/v3":      "rotator/schedule",
	"github.com/hashicorp/vault/api": "sinks/vaultkv",
	"modernc.org/sqlite":             "rotator/store",
	"github.com/spf13/cobra":         "cmd/rotatord",

	"github.com/prometheus/client_golang/prometheus":            "rotator/monitor",
	"github.com/prometheus/client_golang/prometheus/collectors": "rotator/monitor",
	"github.com/prometheus/client_golang/prometheus/promhttp":   "rotator/monitor",
	"github.com/lmittmann/tint":                                 "cmd/rotatord",
	"go.yaml.in/yaml/v4":                                        "cmd/rotatord/config",
}

func TestImportsRunOneWay(t *testing.T) {
	out, err := exec.Command("go", "list", "-f", `{{.ImportPath}}:{{join .Imports " "}}`, module+"...").CombinedOutput()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		path, imports, _ := strings.Cut(strings.TrimSpace(line), ":")
		room := strings.TrimPrefix(path, module)
		allowed, known := mayImport[room]
		if !known {
			t.Errorf("%s is a new room: say in this test what it may know", room)
			continue
		}
		for imp := range strings.FieldsSeq(imports) {
			if ours, ok := strings.CutPrefix(imp, module); ok && !slices.Contains(allowed, ours) {
				t.Errorf("%s must not import %s", room, ours)
			}
			if home, ok := onlyIn[imp]; ok && home != room {
				t.Errorf("%s must not import %s: only %s does", room, imp, home)
			}
			if room == "rotator" && strings.Contains(imp, ".") {
				t.Errorf("rotator must know the standard library only, not %s", imp)
			}
		}
	}
}
