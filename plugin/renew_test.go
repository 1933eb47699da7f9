package plugin

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/plugin/annotation"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"golang.org/x/sys/unix"
)

// older is a rig whose pod has the rules of another release, with settings that the configuration no longer contains.
func older(t *testing.T) *rig {
	r := newRig(t)
	r.annotate(object{annotation.SidecarStatus: "{}", annotation.InterceptionMode: "TPROXY"})
	r.must("ADD")
	r.rewrite(func(got *record.Record) {
		got.RuleSetHash, got.Reason, got.Detail = "of another release", "as-it-was-then", "kept"
		got.Spec = json.RawMessage(`{"mode": "TPROXY", "excludeInboundPorts": "9000"}`) // not those of the configuration
	})
	r.netns.Flush() // the rules of the other release differ from those of this one
	r.annotate(object{annotation.Initialize: "false"})
	r.conf["redirect"] = object{"outboundPort": 15101}
	r.args.Args += ";" + renewArg + "=true"
	return r
}

// The decision of the first ADD stays, whatever the pod says now, and the agent is not asked.
func TestRenew(t *testing.T) {
	r := older(t)
	before := r.record()
	r.conf["agentSocket"] = unaskable
	r.must("ADD")
	r.redirected(`{"mode": "TPROXY", "excludeInboundPorts": "9000"}`)
	got := r.record()
	spec, err := redirect.ParseSpec(got.Spec)
	if err != nil || got.RuleSetHash != spec.RuleSet().Hash() || !got.Time.After(before.Time) {
		t.Errorf("%v: recorded %+v", err, got)
	}
	if len(before.Created) == 0 || !slices.Equal(slices.Sorted(slices.Values(got.Created)),
		slices.Sorted(slices.Values(before.Created))) {
		t.Errorf("created %q, before %q", got.Created, before.Created)
	}
	got.Spec, got.RuleSetHash, got.Time, got.DurationMicroseconds, got.Created = before.Spec, before.RuleSetHash,
		before.Time, before.DurationMicroseconds, before.Created
	if !reflect.DeepEqual(got, before) {
		t.Errorf("recorded %+v, before %+v", got, before)
	}
	says(t, r.out.String(), "10.0.0.2/24")
	says(t, r.log.String(), "renewed=true", "decision=redirect", "backend=nftables")
	r.must("CHECK")
	r.must("DEL")
	r.clean()
}

// If a renewal fails, it removes nothing, and the record still describes the old rules.
func TestRenewFails(t *testing.T) {
	for name, test := range map[string]struct {
		breaks func(*rig)
		code   uint
		words  []string
	}{
		"refused by the kernel": {func(r *rig) { r.netns.Fail = map[string]error{"Replace": errors.New("no buffer")} },
			codeRules, []string{"renewing the packet rules", "no buffer"}},
		"foreign rules": {func(r *rig) { r.netns.Foreign = []string{"nat ISTIO_OUTPUT"} }, codeRules,
			[]string{"Istio's own"}},
		"no backend": {func(r *rig) { r.netns.Lacking = errors.New("nothing") }, codeBackend, nil},
		"no record": {func(r *rig) { await.Must(r, r.store.Delete(sandbox, "eth0")) }, codeNoRecord,
			[]string{"no record says"}},
		"left untouched": {func(r *rig) {
			r.rewrite(func(got *record.Record) { got.Decision = record.Untouched })
		}, codeNoRecord, []string{"no record says"}},
		"another namespace": {func(r *rig) { r.netnsID = "boot/4026532290/9" }, codeDrift, []string{podNetNS}},
		"next version":      {func(r *rig) { r.overwrite(`{"version":2}`) }, 11, []string{"record version 2"}},
		"unreadable settings": {func(r *rig) {
			r.rewrite(func(got *record.Record) { got.Spec = json.RawMessage(`{"notYetKnown":0}`) })
		}, codeRecord, []string{"settings cannot be read"}},
		"another word":           {func(r *rig) { r.args.Args += "r" }, 4, []string{renewArg, `"truer"`}},
		"no result":              {func(r *rig) { r.stdout = brokenPipe{} }, 5, []string{"printing the result"}},
		"no room for the record": {(*rig).readOnly, codeRecord, []string{"writing the record"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := older(t)
			test.breaks(r)
			files, rules := r.files(), r.netns.Dump()
			r.fails("ADD", test.code, test.words...)
			if r.netns.Calls["Remove"] > 0 {
				t.Errorf("something was removed from\n%s", rules)
			}
			if got := r.files(); test.code != 5 && !reflect.DeepEqual(got, files) {
				t.Errorf("recorded %q, before %q", got, files)
			}
		})
	}
}

// readOnly makes the directory of the records unwritable, even for root.
func (r *rig) readOnly() {
	r.Helper()
	pods := r.store.Pods()
	await.Must(r, unix.Mount(pods, pods, "", unix.MS_BIND, ""))
	r.Cleanup(func() { await.Must(r, unix.Unmount(pods, unix.MNT_DETACH)) })
	await.Must(r, unix.Mount("", pods, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""))
}

// files returns the contents of the directory of the records, by file name.
func (r *rig) files() map[string]string {
	r.Helper()
	held := map[string]string{}
	paths, _ := filepath.Glob(filepath.Join(r.store.Pods(), "*"))
	for _, path := range paths {
		text, err := os.ReadFile(path)
		await.Must(r, err)
		held[filepath.Base(path)] = string(text)
	}
	return held
}
