package sysdump

import (
	"archive/tar"
	"bytes"
	"cmp"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/agent/ctl/output"
	"sigs.k8s.io/yaml"
)

// top is the archive's top directory.
const top = "istio-pod-network-sysdump"

// indexFile is the first file of an archive.
const indexFile = "index.json"

// Limits.
const (
	maxFile  = 4 << 20   // bytes of a file, before names are replaced
	maxFiles = 256 << 20 // bytes of all files together
)

// Index lists what an archive has, and what it lacks.
type Index struct {
	output.Head `json:",inline"`
	Archive     string    `json:"archive,omitempty"` // path of the archive; absent if none is written
	Time        time.Time `json:"time"`
	Tool        string    `json:"tool"` // its version
	Redacted    bool      `json:"redacted"`
	Bytes       int       `json:"bytes"` // of all files together
	Files       []Listed  `json:"files"`
	Unread      []Unread  `json:"unread"` // what is missing
}

// Listed is a file in an archive.
type Listed struct {
	Path  string `json:"path"` // below the top directory
	Bytes int    `json:"bytes"`
	Note  string `json:"note,omitempty"` // what was left out
}

// Unread is something that could not be read.
type Unread struct {
	What   string `json:"what"`
	Reason string `json:"reason"`
	Next   string `json:"next"` // what to do about it
}

// file is a file for an archive. Its path is dir/of/base; of is the name of a node or a namespace, or "".
type file struct {
	dir, of, base string
	text          string // for a text file
	objects       []any  // for YAML, one document each; for JSON, one object
	note          string
	free          bool // it has texts of others, in which names cannot be recognised
}

// contents are the files for an archive. Several goroutines may add files.
type contents struct {
	mu     sync.Mutex
	files  []file
	unread []Unread
	bytes  int
}

// add adds a file, unless there are too many bytes already. A file that is too large is cut between objects.
func (c *contents) add(f file) {
	size := len(f.text)
	for i, o := range f.objects {
		data, err := json.Marshal(o)
		if size += len(data); err != nil || size > maxFile {
			f.note = fmt.Sprintf("%d of %d objects: a file has at most %d bytes", i, len(f.objects), maxFile)
			f.objects = f.objects[:i]
			break
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes+size > maxFiles {
		c.unread = append(c.unread, Unread{path.Join(f.dir, f.of, f.base),
			fmt.Sprintf("the archive would have more than %d bytes", maxFiles),
			"Make one of fewer nodes (--nodes), or with fewer lines of logs (--log-lines)."})
		return
	}
	c.bytes += size
	c.files = append(c.files, f)
}

// miss adds what could not be read.
func (c *contents) miss(err error, format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unread = append(c.unread, Unread{fmt.Sprintf(format, args...), err.Error(), nextOf(err)})
}

// written is a file with its bytes.
type written struct {
	path string
	data []byte
}

// render returns the files' bytes and the index. r is nil without --redact.
func (c *contents) render(r *redactor) (files []written, index Index, err error) {
	index = Index{Head: output.HeadOf("SysdumpIndex"), Redacted: r != nil, Files: []Listed{}, Unread: []Unread{}}
	for _, f := range c.files {
		data, err := f.render(r)
		if err != nil {
			return nil, index, fmt.Errorf("writing %s: %w", f.base, err)
		}
		name := path.Join(f.dir, r.text(f.of), f.base)
		files = append(files, written{name, data})
		index.Files = append(index.Files, Listed{name, len(data), f.note})
		index.Bytes += len(data)
	}
	for _, u := range c.unread {
		index.Unread = append(index.Unread, Unread{r.text(u.What), r.problem(u.Reason), r.text(u.Next)})
	}
	slices.SortFunc(files, func(a, b written) int { return cmp.Compare(a.path, b.path) })
	slices.SortFunc(index.Files, func(a, b Listed) int { return cmp.Compare(a.Path, b.Path) })
	slices.SortFunc(index.Unread, func(a, b Unread) int {
		return cmp.Or(cmp.Compare(a.What, b.What), cmp.Compare(a.Reason, b.Reason))
	})
	return files, index, nil
}

// render returns the bytes of a file.
func (f file) render(r *redactor) ([]byte, error) {
	if f.objects == nil {
		return []byte(r.log(f.text)), nil
	}
	var all bytes.Buffer
	for i, o := range f.objects {
		o = r.object(o)
		if path.Ext(f.base) == ".json" {
			data, err := json.MarshalIndent(o, "", "  ")
			if err != nil {
				return nil, err
			}
			return append(data, '\n'), nil
		}
		data, err := yaml.Marshal(o)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			all.WriteString("---\n")
		}
		all.Write(data)
	}
	return all.Bytes(), nil
}

// pack writes an archive. The same files always give the same bytes.
func pack(to io.Writer, files []written, index Index) error {
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	zipped := gzip.NewWriter(to)
	archive := tar.NewWriter(zipped)
	for _, f := range append([]written{{indexFile, append(data, '\n')}}, files...) {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: path.Join(top, f.path), Mode: 0o600, Size: int64(len(f.data)),
			ModTime: index.Time}
		if err := archive.WriteHeader(h); err != nil {
			return err
		}
		if _, err := archive.Write(f.data); err != nil {
			return err
		}
	}
	if err := archive.Close(); err != nil {
		return err
	}
	return zipped.Close()
}
