// Package sysdump packs what a maintainer needs into one archive, without credentials.
package sysdump

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/cluster"
	"github.com/istio-pod-network/controller/agent/ctl/explain"
	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/agent/ctl/output"
	"github.com/istio-pod-network/controller/internal/buildinfo"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const long = `Collects what a maintainer asks for into one archive, which you can attach to an issue. It has the
objects of the release, nodes, labels of namespaces, pods of the mesh and Events; and for each agent
its log, its metrics and what it says about its node, with the CNI directories and the records. With
--pod it also has what the agent says about that pod, and the packet rules in the pod's network,
whichever program has written them, but without the values that they compare with. First the tool
lists on standard error what the archive will have. At the end it lists each file with its size.
Read the files before you pass them on.

It reads no Secret, no value of an environment variable and no kubeconfig. In what it reads it
blanks what looks like a credential, and each value that is named token, password, secret or key.
With --redact it replaces names by pseudonyms: addresses; names of nodes, namespaces, pods and their
owners; the API server's host, and users that the API server refuses; and names in the packet rules
of other programs. A name has the same pseudonym everywhere in an archive, and another one in the
next archive.

-n is the agents' namespace. If you give --pod NAME without a namespace, -n is the pod's namespace.

It needs the verb list on what it lists, get and create on pods/exec, and get on pods/log and
pods/proxy in the agents' namespace. It names what it could not read on standard error and in
index.json of the archive, with the reason and what to do.

Exit status: 0 if everything is in the archive, 1 if something could not be read, 2 for a wrong
command line or if the file exists already, 3 if no archive could be made.`

const example = `  # For an issue that everyone can read
  %[1]s sysdump --redact

  # Only list what the archive would have
  %[1]s sysdump --redact --list

  # Also with the packet rules of pods
  %[1]s sysdump --redact --pod shop/cart-0
  %[1]s sysdump --redact -n shop --pod cart-0,cart-1

  # Two nodes of a large cluster
  %[1]s sysdump --nodes node-1,node-2 --output /tmp/dump.tar.gz`

// options are the values of the command line.
type options struct {
	namespace string // of the agents; "" for all
	nodes     []string
	chosen    []string // pods whose rules are read, NAMESPACE/NAME
	logLines  int64
	file      string
	format    string
	list      bool
	redact    bool

	now    time.Time
	salt   []byte
	stderr io.Writer
	first  io.Writer // for the announcement, before anything is read
}

// defaultLines is how many lines of a log are read.
const defaultLines = 20000

// Command returns the command. name is the program's name, namespace the value of the usual flag.
func Command(name string, namespace *string, flags cluster.Flags, writer output.Writer) *cobra.Command {
	var o options
	c := &cobra.Command{
		Use: "sysdump", Short: "Collect what a maintainer asks for into an archive", Long: long,
		Example: fmt.Sprintf(example, name), Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			o.namespace = cluster.AgentsNamespace(c.Flags())
			o.now, o.salt = time.Now().UTC().Truncate(time.Second), []byte(rand.Text())
			o.stderr, o.first = c.ErrOrStderr(), c.ErrOrStderr()
			if o.list {
				if err := cluster.CheckUnused(c.Flags(), "with --list no archive is written", "output"); err != nil {
					return err
				}
			}
			format, err := o.check()
			if err != nil {
				return err
			}
			if slices.ContainsFunc(o.chosen, isBare) {
				o.namespace = "" // the flag is for the pods then
				if o.chosen, err = explain.Names(c, flags, *namespace, o.chosen); err != nil {
					return err
				}
			}
			writer.Format = format
			return flags.Ask(c.Context(), func(ctx context.Context, from *cluster.Cluster) error {
				return o.run(ctx, from, writer)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&o.file, "output", "", "`file` to write; it must not exist yet (default "+
		"istio-pod-network-sysdump-TIME.tar.gz)")
	f.BoolVar(&o.list, "list", false, "list what the archive would have, and write no archive")
	f.BoolVar(&o.redact, "redact", false, "replace addresses and names of nodes, namespaces and pods by pseudonyms")
	f.StringSliceVar(&o.nodes, "nodes", nil, "`names` of the nodes to look at, separated by commas (default: all)")
	f.StringSliceVar(&o.chosen, "pod", nil, "`names` of pods whose record and packet rules are read too: NAME or "+
		"NAMESPACE/NAME, separated by commas")
	_ = c.RegisterFlagCompletionFunc("pod", explain.CompletePods(flags, namespace))
	f.Int64Var(&o.logLines, "log-lines", defaultLines, "how many `lines` to read from the end of each log")
	f.StringVar(&o.format, "format", string(output.Table), "`format` of the list: "+strings.Join(output.Formats, ", "))
	_ = c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(output.Formats, cobra.ShellCompDirectiveNoFileComp))
	return c
}

// check fills in the archive's path, and checks that it can be written.
func (o *options) check() (output.Format, error) {
	format, err := output.ParseFormat(o.format)
	switch {
	case err != nil:
		return "", outcome.Misuse(invalid.Text("--format", o.format, "unknown format", strings.Join(output.Formats, ", ")))
	case slices.Contains(output.Formats, o.file):
		return "", outcome.Misuse(invalid.Text("--output", o.file, "this flag names the archive",
			"a file; the listing has --format"))
	case o.logLines < 1:
		return "", outcome.Misuse(invalid.Text("--log-lines", fmt.Sprint(o.logLines), "", "1 or more"))
	case o.file == "":
		o.file = "istio-pod-network-sysdump-" + o.now.Format("20060102T150405Z") + ".tar.gz"
	}
	for _, pod := range o.chosen {
		if _, _, err := cluster.ParsePod("--pod", pod, metav1.NamespaceDefault); err != nil {
			return "", err
		}
	}
	for _, node := range o.nodes {
		if err := cluster.CheckNode("--nodes", node); err != nil {
			return "", outcome.Misuse(err)
		}
	}
	if _, err := os.Lstat(o.file); !o.list && !errors.Is(err, fs.ErrNotExist) {
		if err == nil {
			err = invalid.Text("--output", o.file, "the file is there already", "a file that is not")
		}
		return "", outcome.Misuse(err)
	}
	if o.list {
		return format, nil
	}
	return format, output.CheckFile("--output", o.file)
}

// isBare reports whether a pod is named without its namespace.
func isBare(pod string) bool { return !strings.Contains(pod, "/") }

func (o options) run(ctx context.Context, from Source, w output.Writer) error {
	o.announce()
	c := &collector{options: o, from: from}
	if o.redact {
		c.hide = newRedactor(o.salt)
		c.hide.knowHost(from.Host())
	}
	if err := c.collect(ctx); err != nil {
		return err
	}
	c.harvest()
	files, index, err := c.render(c.hide)
	if err != nil {
		return outcome.Unasked(err)
	}
	index.Time, index.Tool = o.now, buildinfo.Version()
	if !o.list {
		index.Archive = o.file
		if err := o.write(files, index); err != nil {
			return outcome.Unasked(err)
		}
	}
	if err := w.Object(index, index.write); err != nil {
		return outcome.Unasked(err)
	}
	if len(index.Unread) == 0 {
		return nil
	}
	var next []string
	for _, u := range index.Unread {
		fmt.Fprintf(o.stderr, "not read: %s\n", output.Printable(u.What+": "+u.Reason))
		if !slices.Contains(next, u.Next) {
			next = append(next, u.Next)
		}
	}
	told := output.Writer{Out: o.stderr, Format: output.Table, Tool: w.Tool}
	_ = told.Object(nil, func(t *output.Text) { // the archive is written, so a failed write here does not matter
		for _, what := range next {
			t.Item("->", "%s", what)
		}
	})
	return outcome.ErrNotWell
}

// write writes the archive, readable for its user alone.
func (o options) write(files []written, index Index) error {
	index.Archive = "" // the archive's name may have private names
	var data bytes.Buffer
	if err := pack(&data, files, index); err != nil {
		return err
	}
	to, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = to.Write(data.Bytes())
	if err = errors.Join(err, to.Close()); err != nil {
		_ = os.Remove(o.file)
	}
	return err
}

// write writes the listing as text.
func (i Index) write(t *output.Text) {
	rows := [][]string{{"FILE", "BYTES", "NOTE"}}
	for _, f := range i.Files {
		rows = append(rows, []string{f.Path, fmt.Sprint(f.Bytes), f.Note})
	}
	t.Columns(rows)
	t.WriteByte('\n')
	colour, lacks := output.Green, ""
	if len(i.Unread) > 0 {
		colour, lacks = output.Yellow, fmt.Sprintf("; %d could not be read, see standard error and index.json",
			len(i.Unread))
	}
	what := i.Archive
	if what == "" {
		what = "nothing written"
	}
	t.Line(colour, "%s: %d files, %d bytes%s", what, len(i.Files), i.Bytes, lacks)
	if !i.Redacted {
		t.Line(output.Plain, "It has names and addresses of your cluster; --redact puts pseudonyms in their place.")
	}
}
