// Command images builds the project's container images: either from the Dockerfiles with docker, podman or buildah, or
// itself with the same files. It writes OCI archives, and can push to a registry.
package main

import (
	"context"
	_ "embed"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// help is the text of --help. scripts/images.sh prints the same file without Go.
//
//go:embed help.txt
var help string

// options are the values of the flags, and what is read from git.
type options struct {
	root      string // of the repository
	builder   string
	platforms []v1.Platform
	version   string
	output    string
	push      string
	offline   bool
	check     bool
	shop      bool

	revision string
	created  time.Time
	work     string // temporary directory of this run
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	o, err := parse(os.Args[1:])
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "images:", err, "(see --help)")
		os.Exit(2)
	}
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "images:", err)
		os.Exit(1)
	}
}

// flags defines the flags in help, and --root, the repository's directory.
func (o *options) flags(platforms *string) *flag.FlagSet {
	f := flag.NewFlagSet("images", flag.ContinueOnError)
	f.Usage = func() {}
	f.SetOutput(io.Discard)
	f.StringVar(&o.builder, "builder", "auto", "")
	f.StringVar(platforms, "platform", "linux/"+runtime.GOARCH, "")
	f.StringVar(&o.version, "version", "", "")
	f.StringVar(&o.output, "output", "dist/images", "")
	f.StringVar(&o.push, "push", "", "")
	f.BoolVar(&o.offline, "offline", false, "")
	f.BoolVar(&o.check, "check", false, "")
	f.BoolVar(&o.shop, "shop", false, "")
	f.StringVar(&o.root, "root", "../..", "")
	return f
}

// parse reads the command line, and from git what the flags do not set.
func parse(args []string) (o options, err error) {
	var platforms string
	f := o.flags(&platforms)
	err = f.Parse(args)
	if errors.Is(err, flag.ErrHelp) {
		fmt.Print(help)
	}
	switch {
	case err != nil:
		return o, err
	case f.NArg() > 0:
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	case !slices.Contains(builderNames, o.builder):
		return o, fmt.Errorf("--builder: invalid value %q; valid: %s", o.builder, strings.Join(builderNames, ", "))
	case o.offline && o.builder != "buildah" && o.builder != "none":
		return o, fmt.Errorf("--offline: only buildah and none can, not --builder %s", o.builder)
	}
	if o.platforms, err = parsePlatforms(platforms); err != nil {
		return o, err
	}
	o.push = strings.TrimSuffix(o.push, "/")
	if _, err := name.NewRepository(o.push + "/image"); o.push != "" && (err != nil || strings.Contains(o.push, "://")) {
		return o, fmt.Errorf("--push: invalid value %q; valid: a registry without a scheme, such as "+
			"registry.example.com/mesh", o.push)
	}
	if o.root, err = filepath.Abs(o.root); err != nil {
		return o, err
	}
	if !filepath.IsAbs(o.output) {
		o.output = filepath.Join(o.root, o.output)
	}
	return o, o.askGit()
}

// architectures are the architectures for which the images can be built.
var architectures = []string{"amd64", "arm64"}

func parsePlatforms(list string) (platforms []v1.Platform, err error) {
	for _, text := range strings.Split(list, ",") {
		system, architecture, _ := strings.Cut(text, "/")
		if system != "linux" || !slices.Contains(architectures, architecture) {
			return nil, fmt.Errorf("--platform: invalid value %q; valid: linux/%s", text,
				strings.Join(architectures, ", linux/"))
		}
		platforms = append(platforms, v1.Platform{OS: system, Architecture: architecture})
	}
	return platforms, nil
}

// askGit reads version, revision and time of the sources. Without git these are unknown, and the images say so.
func (o *options) askGit() error {
	git := func(args ...string) string {
		out, err := exec.Command("git", append([]string{"-C", o.root}, args...)...).Output()
		if err != nil {
			return ""
		}
		return strings.TrimSpace(string(out))
	}
	if o.version == "" {
		o.version = git("describe", "--tags", "--always", "--dirty")
	}
	if o.version == "" {
		o.version = "unknown"
	}
	if o.revision = git("rev-parse", "HEAD"); o.revision == "" {
		o.revision = "unknown"
	}
	seconds, _ := strconv.ParseInt(git("log", "-1", "--format=%ct"), 10, 64) // 0, which is 1970, without git
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		var err error
		if seconds, err = strconv.ParseInt(epoch, 10, 64); err != nil {
			return fmt.Errorf("SOURCE_DATE_EPOCH: invalid value %q; valid: seconds since 1970", epoch)
		}
	}
	o.created = time.Unix(seconds, 0).UTC()
	return nil
}

// run builds all images.
func (o options) run(ctx context.Context) error {
	if err := os.MkdirAll(o.output, 0o755); err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "istio-pod-network-images-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	o.work = work
	b, err := o.chooseBuilder(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "image\tplatform\tdigest\tMiB\tbuilder\tarchive")
	for _, i := range o.images() {
		var built []v1.Image
		for _, p := range o.platforms {
			start := time.Now()
			fmt.Fprintf(os.Stderr, "images: %s for %s, with %s\n", i.name, p, b.name())
			image, err := b.build(ctx, i, p)
			first := i.name == images[0].name && len(built) == 0
			if err != nil && first && o.builder == "auto" && ctx.Err() == nil {
				// A tool that can run a program may still be unable to get the base, for example without a registry.
				fmt.Fprintf(os.Stderr, "images: %v; going on without it\n", err)
				b = assembler{o}
				image, err = b.build(ctx, i, p)
			}
			if err == nil && o.check {
				err = o.compare(ctx, i, p, image)
			}
			if err != nil {
				return fmt.Errorf("building %s for %s: %w", i.name, p, err)
			}
			fmt.Fprintf(os.Stderr, "images: %s for %s: %.0f s\n", i.name, p, time.Since(start).Seconds())
			built = append(built, image)
		}
		archive := filepath.Join(o.output, i.name+".tar")
		if err := o.deliver(ctx, i, built, archive); err != nil {
			return err
		}
		for n, image := range built {
			if err := row(table, i, o, n, image, b.name(), archive); err != nil {
				return err
			}
		}
	}
	return table.Flush()
}

// row prints one row of the table.
func row(table *tabwriter.Writer, i imageSpec, o options, n int, image v1.Image, builder, archive string) error {
	digest, err := image.Digest()
	if err != nil {
		return err
	}
	size, err := contentSize(image)
	if err != nil {
		return err
	}
	if near, err := filepath.Rel(o.root, archive); err == nil {
		archive = near
	}
	fmt.Fprintf(table, "%s:%s\t%s\t%s\t%.1f\t%s\t%s\n", i.name, o.version, o.platforms[n], digest, float64(size)/(1<<20),
		builder, archive)
	return nil
}
