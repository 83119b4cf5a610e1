package manifests

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"
)

func TestCompose(t *testing.T) {
	project, err := loader.LoadWithContext(t.Context(), types.ConfigDetails{
		WorkingDir:  t.TempDir(),
		ConfigFiles: []types.ConfigFile{{Filename: "compose.yaml", Content: file(t, "compose.yaml")}},
		Environment: types.Mapping{},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := project.Services["rotatord"]
	if !s.ReadOnly || !slices.Equal(s.CapDrop, []string{"ALL"}) || !slices.Contains(s.SecurityOpt, "no-new-privileges:true") {
		t.Error("rotatord runs with more than it needs")
	}
	if s.StopGracePeriod == nil || time.Duration(*s.StopGracePeriod) < 75*time.Second {
		t.Error("a stop does not wait for a rotation that is under way")
	}
	targets := map[string]string{}
	for _, v := range s.Volumes {
		targets[v.Target] = v.Type
	}
	if targets["/var/lib/rotatord"] != types.VolumeTypeVolume {
		t.Error("the state is in no volume")
	}
	for target := range targets {
		if strings.Contains(target[1:], ".") {
			t.Errorf("%s looks like a file: a mount of a single file cannot be replaced", target)
		}
	}
	if len(s.Secrets) != 1 || *s.Environment["SITEGPT_API_TOKEN_FILE"] != "/run/secrets/"+s.Secrets[0].Source {
		t.Error("the management token is not where SITEGPT_API_TOKEN_FILE says")
	}
	text := string(file(t, "etc/rotation.yaml"))
	accepted(t, text)
	if targets["/tokens"] == "" || !strings.Contains(text, "path: /tokens/") {
		t.Error("the sinks of rotation.yaml are not on a mount")
	}
}
