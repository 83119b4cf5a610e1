package manifests

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	_ "k8s.io/kubernetes/pkg/apis/apps/install"
	appsvalidation "k8s.io/kubernetes/pkg/apis/apps/validation"
	"k8s.io/kubernetes/pkg/apis/batch"
	_ "k8s.io/kubernetes/pkg/apis/batch/install"
	batchvalidation "k8s.io/kubernetes/pkg/apis/batch/validation"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	corevalidation "k8s.io/kubernetes/pkg/apis/core/validation"
)

// objects decodes a file as strictly as the API server can (unknown and repeated fields are errors),
// fills in its defaults, and validates them as it does.
func objects(t *testing.T, name string) []runtime.Object {
	t.Helper()
	strict := serializer.NewCodecFactory(legacyscheme.Scheme, serializer.EnableStrict).UniversalDeserializer()
	reader := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(file(t, name))))
	var out []runtime.Object
	for {
		doc, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		object, kind, err := strict.Decode(doc, nil, nil)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		legacyscheme.Scheme.Default(object)
		internal, err := legacyscheme.Scheme.UnsafeConvertToVersion(object, runtime.InternalGroupVersioner)
		if err != nil {
			t.Fatalf("%s: %s: %v", name, kind.Kind, err)
		}
		for _, err := range validate(t, internal) {
			t.Errorf("%s: %s: %v", name, kind.Kind, err)
		}
		out = append(out, internal)
	}
}

func validate(t *testing.T, object runtime.Object) field.ErrorList {
	t.Helper()
	pods := corevalidation.PodValidationOptions{}
	switch o := object.(type) {
	case *core.ServiceAccount:
		o.Namespace = "default"
		return corevalidation.ValidateServiceAccount(o)
	case *core.ConfigMap:
		o.Namespace = "default"
		return corevalidation.ValidateConfigMap(o)
	case *core.Secret:
		o.Namespace = "default"
		return corevalidation.ValidateSecret(o)
	case *core.PersistentVolumeClaim:
		o.Namespace = "default"
		return corevalidation.ValidatePersistentVolumeClaim(o, corevalidation.PersistentVolumeClaimSpecValidationOptions{})
	case *apps.Deployment:
		o.Namespace = "default"
		return appsvalidation.ValidateDeployment(o, pods)
	case *batch.CronJob:
		o.Namespace = "default"
		return batchvalidation.ValidateCronJobCreate(o, pods)
	}
	t.Fatalf("nothing validates a %T", object)
	return nil
}

// find returns the one object of a type.
func find[T runtime.Object](t *testing.T, all []runtime.Object) T {
	t.Helper()
	for _, o := range all {
		if o, ok := o.(T); ok {
			return o
		}
	}
	var none T
	t.Fatalf("there is no %T", none)
	return none
}

func TestKubernetes(t *testing.T) {
	all := objects(t, "rotatord.yaml")
	d := find[*apps.Deployment](t, all)
	if d.Spec.Replicas != 1 || d.Spec.Strategy.Type != apps.RecreateDeploymentStrategyType {
		t.Error("two pods could work on one state")
	}
	c := pod(t, d.Spec.Template.Spec, all)
	if c.LivenessProbe == nil || c.ReadinessProbe == nil || c.StartupProbe == nil {
		t.Fatal("a probe is missing")
	}
	for _, p := range []*core.Probe{c.LivenessProbe, c.ReadinessProbe, c.StartupProbe} {
		known(t, p.Exec.Command[1:]...)
	}
	accepted(t, find[*core.ConfigMap](t, all).Data["rotation.yaml"])
}

func TestCronJob(t *testing.T) {
	all := append(objects(t, "cronjob.yaml"), objects(t, "rotatord.yaml")...)
	j := find[*batch.CronJob](t, all)
	if j.Spec.ConcurrencyPolicy != batch.ForbidConcurrent {
		t.Error("two passes could work on one state")
	}
	c := pod(t, j.Spec.JobTemplate.Spec.Template.Spec, all)
	if !slices.Contains(c.Args, "--next-pass") {
		t.Error("the passes promise no interval")
	}
}

// pod holds that a pod has what rotatord needs and nothing more, and that what it mounts is declared.
func pod(t *testing.T, p core.PodSpec, all []runtime.Object) core.Container {
	t.Helper()
	c := p.Containers[0]
	s := c.SecurityContext
	if !*p.SecurityContext.RunAsNonRoot || *s.AllowPrivilegeEscalation || !*s.ReadOnlyRootFilesystem ||
		!slices.Equal(s.Capabilities.Drop, []core.Capability{"ALL"}) || p.SecurityContext.SeccompProfile == nil {
		t.Error("the pod is not restricted")
	}
	if *p.TerminationGracePeriodSeconds < 75 {
		t.Error("a stop does not wait for a rotation that is under way")
	}
	if p.ServiceAccountName != find[*core.ServiceAccount](t, all).Name {
		t.Errorf("there is no service account %q", p.ServiceAccountName)
	}
	known(t, c.Args...)
	sources := map[string]core.VolumeSource{}
	for _, v := range p.Volumes {
		sources[v.Name] = v.VolumeSource
	}
	mounts := map[string]core.VolumeSource{}
	for _, m := range c.VolumeMounts {
		if m.SubPath != "" {
			t.Errorf("%s is mounted by subPath, and never changes", m.MountPath)
		}
		mounts[m.MountPath] = sources[m.Name]
	}
	if v := mounts["/etc/rotatord"].ConfigMap; v == nil || v.Name != find[*core.ConfigMap](t, all).Name {
		t.Error("the configuration is not at /etc/rotatord")
	}
	if v := mounts["/var/lib/rotatord"].PersistentVolumeClaim; v == nil || v.ClaimName != find[*core.PersistentVolumeClaim](t, all).Name {
		t.Error("the state is in no claim")
	}
	secret := find[*core.Secret](t, all)
	folder, key, found := "", "", false
	for _, e := range c.Env {
		if e.Name == "SITEGPT_API_TOKEN_FILE" {
			i := strings.LastIndex(e.Value, "/")
			folder, key = e.Value[:i], e.Value[i+1:]
		}
	}
	_, found = secret.Data[key]
	if v := mounts[folder].Secret; v == nil || v.SecretName != secret.Name || !found {
		t.Error("the management token is not where SITEGPT_API_TOKEN_FILE says")
	}
	return c
}
