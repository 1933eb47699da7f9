package check

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"text/template"

	"github.com/istio-pod-network/controller/chart"
	"sigs.k8s.io/yaml"
)

// chartDir is the directory of the chart.
const chartDir = "../../../chart/istio-pod-network-controller"

// chartFiles gives templates access to the chart's files.
type chartFiles struct{ t *testing.T }

func (f chartFiles) Get(name string) string {
	text, err := os.ReadFile(filepath.Join(chartDir, name))
	if err != nil {
		f.t.Fatal(err)
	}
	return string(text)
}

// isEmpty reports whether Helm treats a value as unset.
func isEmpty(value any) bool {
	v := reflect.ValueOf(value)
	if value == nil || v.IsZero() {
		return true
	}
	return (v.Kind() == reflect.Map || v.Kind() == reflect.Slice) && v.Len() == 0
}

// helmFunctions are the functions of Helm that the templates below use, with Helm's behaviour
// (helm.sh/docs/chart_template_guide).
var helmFunctions = template.FuncMap{
	"default": func(otherwise any, given ...any) any {
		if len(given) == 0 || isEmpty(given[0]) {
			return otherwise
		}
		return given[0]
	},
	"dict": func(pairs ...any) map[string]any {
		d := map[string]any{}
		for i := 0; i+1 < len(pairs); i += 2 {
			d[fmt.Sprint(pairs[i])] = pairs[i+1]
		}
		return d
	},
	"fromYaml": func(text string) (m map[string]any, err error) { err = yaml.Unmarshal([]byte(text), &m); return m, err },
	"get": func(d map[string]any, key string) any {
		if value, has := d[key]; has {
			return value
		}
		return ""
	},
	"list":  func(all ...any) []any { return all },
	"lower": strings.ToLower,
	"quote": func(value any) string { return fmt.Sprintf("%q", fmt.Sprint(value)) },
	"ternary": func(yes, no any, condition bool) any {
		if condition {
			return yes
		}
		return no
	},
	"toJson":     func(value any) (string, error) { text, err := json.Marshal(value); return string(text), err },
	"toString":   func(value any) string { return fmt.Sprint(value) },
	"trimSuffix": func(suffix, text string) string { return strings.TrimSuffix(text, suffix) },
}

var notDefined = regexp.MustCompile(`function "(\w+)" not defined`)

// helpers returns the chart's named templates. Other functions than those above do nothing.
func helpers(t *testing.T) *template.Template {
	t.Helper()
	functions, text := maps.Clone(helmFunctions), chartFiles{t}.Get("templates/_helpers.tpl")
	for {
		parsed, err := template.New("").Funcs(functions).Parse(text)
		if err == nil {
			return parsed
		}
		name := notDefined.FindStringSubmatch(err.Error())
		if name == nil {
			t.Fatal(err)
		}
		functions[name[1]] = func(...any) (string, error) { return "", fmt.Errorf("%s is not known here", name[1]) }
	}
}

// rendered returns the output of one template.
func rendered(t *testing.T, of *template.Template, name string, argument any) string {
	t.Helper()
	var out bytes.Buffer
	if err := of.ExecuteTemplate(&out, name, argument); err != nil {
		t.Fatalf("template %s: %v", name, err)
	}
	return out.String()
}

// chartValues returns the chart's values with overrides: those that the tool reads, and all for templates.
func chartValues(t *testing.T, set []string) (v values, all map[string]any) {
	t.Helper()
	text := chartFiles{t}.Get("values.yaml")
	if err := yaml.Unmarshal([]byte(text), &all); err != nil {
		t.Fatal(err)
	}
	for _, pair := range set {
		key, value, _ := strings.Cut(pair, "=")
		above, last := all, key
		if group, name, is := strings.Cut(key, "."); is {
			above, last = all[group].(map[string]any), name
		}
		if _, known := above[last]; !known {
			t.Fatalf("the chart has no value %s", key)
		}
		above[last] = value
	}
	v, err := readValues(nil, set, nil)
	if err != nil {
		t.Fatal(err)
	}
	return v, all
}

// The tool's defaults of the chart's values are the chart's.
func TestDefaultsAreTheCharts(t *testing.T) {
	var its values
	if err := yaml.Unmarshal([]byte(chartFiles{t}.Get("values.yaml")), &its); err != nil {
		t.Fatal(err)
	}
	ours, err := readValues(nil, nil, nil)
	want, got := fmt.Sprintf("%+v", its), fmt.Sprintf("%+v", ours)
	if err != nil || got != want {
		t.Errorf("%v\n%s, want\n%s", err, got, want)
	}
	for key := range settable {
		value := "x"
		for _, c := range choices {
			if c.key == key {
				value = c.valid[len(c.valid)-1]
			}
		}
		chartValues(t, []string{key + "=" + value}) // the chart has this value
	}
}

// The tool's platform of a distribution is that of the chart's template "platform", whatever other values are set.
func TestPlatformIsTheCharts(t *testing.T) {
	all, err := presets()
	if err != nil {
		t.Fatal(err)
	}
	of := helpers(t)
	for name := range all {
		for _, set := range [][]string{
			nil, {"openshift.mode=auxChain"}, {"cni.mode=aux"}, {"cni.binDir=/bin/x", "cni.confDir=/conf/x"},
			{"cni.auxDir=/aux/x"}, {"agent.seLinuxType=x_t"}, {"openshift.mode=auxChain", "cni.mode=chain"},
		} {
			set = append([]string{"kubernetesDistribution=" + strings.ToLower(name)}, set...)
			v, values := chartValues(t, set)
			ours, err := v.platform()
			if err != nil {
				t.Fatal(err)
			}
			var its struct {
				Name, BinDir, ConfDir, AuxDir, Mode, SELinuxType string
				Openshift                                        bool
			}
			text := rendered(t, of, "platform", map[string]any{"Files": chartFiles{t}, "Values": values})
			if err := yaml.Unmarshal([]byte(text), &its); err != nil {
				t.Fatalf("%v: %s", err, text)
			}
			want := []string{its.Name, its.Mode, its.ConfDir, its.BinDir, its.AuxDir, its.SELinuxType}
			got := []string{ours.distribution, ours.mode, ours.confDir, ours.binDir, ours.auxDir, ours.seLinuxType}
			if !slices.Equal(got, want) || its.Openshift != (ours.distribution == openShift) || its.Name == "" {
				t.Errorf("%v: %q, and the chart says %q", set, got, want)
			}
		}
	}
}

// Image names are those of the chart's template "image", and nodes without a host those of "haveHosts".
func TestImagesAndHostsAreTheCharts(t *testing.T) {
	of := helpers(t)
	var about map[string]any
	if err := yaml.Unmarshal(chart.About, &about); err != nil {
		t.Fatal(err)
	}
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	for _, set := range [][]string{
		nil, {"image.registry=r.example.com/mesh/"}, {"image.tag=7"}, {"image.digest=" + digest, "image.tag=7"},
		{"image.repository=x/agent", "pluginImage.repository=x/plugin"}, {"pluginImage.tag=8"},
		{"pluginImage.digest=" + digest, "image.tag=7"}, {"pluginImage.tag=8", "image.tag=7"},
	} {
		v, values := chartValues(t, set)
		root := map[string]any{"Values": values, "Chart": map[string]any{"AppVersion": about["appVersion"]}}
		for value, name := range map[string]func() (string, error){"image": v.image, "pluginImage": v.pluginImage} {
			got, err := name()
			if want := rendered(t, of, "image", []any{root, values[value]}); err != nil || got != want {
				t.Errorf("%v: %s is %s, %v, and the chart says %s", set, value, got, err, want)
			}
		}
	}
	var hosts []struct {
		Key, Operator string
		Values        []string
	}
	if err := yaml.Unmarshal([]byte(rendered(t, of, "haveHosts", nil)), &hosts); err != nil {
		t.Fatal(err)
	}
	if len(hosts) != len(hostless) {
		t.Errorf("%d labels, and the chart has %d", len(hostless), len(hosts))
	}
	for _, h := range hosts {
		if h.Operator != "NotIn" || len(h.Values) != 1 || hostless[h.Key] != h.Values[0] {
			t.Errorf("%+v of the chart's is not in %v", h, hostless)
		}
	}
}
