package manifests

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/nomad/jobspec2"
)

func TestNomad(t *testing.T) {
	job, err := jobspec2.Parse("rotatord.nomad.hcl", bytes.NewReader(file(t, "rotatord.nomad.hcl")))
	if err != nil {
		t.Fatal(err)
	}
	group := job.TaskGroups[0]
	task := group.Tasks[0]
	if *group.Count != 1 {
		t.Error("two tasks could work on one state")
	}
	if *task.KillTimeout < 75*time.Second {
		t.Error("a stop does not wait for a rotation that is under way")
	}
	if task.Config["readonly_rootfs"] != true {
		t.Error("the root is writable")
	}
	var args []string
	for _, a := range task.Config["args"].([]any) {
		args = append(args, a.(string))
	}
	known(t, args...)
	mounts := map[string]bool{}
	for _, m := range task.VolumeMounts {
		if group.Volumes[*m.Volume] == nil {
			t.Errorf("there is no volume %q", *m.Volume)
		}
		mounts[*m.Destination] = true
	}
	if !mounts["/var/lib/rotatord"] || !mounts["/tokens"] {
		t.Error("the state or the sinks are on no volume")
	}
	files := map[string]string{}
	for _, tmpl := range task.Templates {
		files[*tmpl.DestPath] = *tmpl.EmbeddedTmpl
	}
	accepted(t, files["local/rotation.yaml"])
	for name, folder := range map[string]string{"ROTATORD_CONFIG": "local", "SITEGPT_API_TOKEN_FILE": "secrets"} {
		path := task.Env[name]
		if files[folder+path[strings.LastIndex(path, "/"):]] == "" {
			t.Errorf("no template makes %s=%s", name, path)
		}
	}
}
