package mark

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/istio-pod-network/controller/internal/watch"
	"github.com/istio-pod-network/controller/plugin/record"
	"github.com/sirupsen/logrus"
)

// How often the directory is read although no change was noticed.
const (
	relistEvery = 30 * time.Second       // inotify's queue may have overflowed
	pollEvery   = 500 * time.Millisecond // without inotify: a pod waits for its mark
)

// Index knows the records that the plugin has left on this node.
type Index struct {
	store   record.Store
	log     *logrus.Logger
	seen    func(r record.Record, fresh bool)
	changed func(id string)

	mu     sync.Mutex
	files  map[string]*recordFile   // by file name
	pods   map[string][]*recordFile // by PodID: a Marker asks at every change of a pod, and a node may have many records
	loaded bool
}

// NewIndex returns an Index of the store. It calls seen for every new version of a record; fresh is true if it came
// while the agent was running. It calls changed for every pod whose records have changed, with the ID that PodID
// returns.
func NewIndex(
	store record.Store, log *logrus.Logger, seen func(r record.Record, fresh bool), changed func(id string),
) *Index {
	return &Index{store: store, log: log, seen: seen, changed: changed, files: map[string]*recordFile{},
		pods: map[string][]*recordFile{}}
}

// recordFile is one record and the version of its file.
type recordFile struct {
	record  record.Record
	info    os.FileInfo
	problem string // why the file cannot be read; logged once
}

// PodID returns the record's ID of its pod: the UID, or NAMESPACE/NAME if the runtime passed no UID to the plugin.
func PodID(r record.Record) string {
	if r.PodUID != "" {
		return r.PodUID
	}
	return r.Namespace + "/" + r.Name
}

// Run watches the directory until ctx ends. It returns an error if it cannot create the directory.
func (x *Index) Run(ctx context.Context) error {
	dirs := watch.New(func(err error) { x.log.WithError(err).Warn("watching the records") })
	defer dirs.Close()
	for {
		// The plugin creates the directory with its first record. It is created here to be watched before that, and again if
		// somebody has removed it.
		if err := os.MkdirAll(x.store.Pods(), 0o700); err != nil {
			return err
		}
		every := relistEvery
		if !dirs.Add(x.store.Pods()) {
			every = pollEvery
		}
		x.relist()
		if !x.follow(ctx, dirs, every) {
			return nil
		}
	}
}

// follow loads what changes. It returns true when the directory has to be read again, and false when ctx ends.
func (x *Index) follow(ctx context.Context, dirs *watch.Dirs, every time.Duration) bool {
	tick := time.NewTimer(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return false
		case <-tick.C:
			return true
		case err := <-dirs.Errors():
			x.log.WithError(err).Debug("something was missed; reading all records again")
			return true
		case e := <-dirs.Events():
			switch name := filepath.Base(e.Name); {
			case e.Name == x.store.Pods(): // the directory was removed or renamed
				dirs.Remove(e.Name)
				return true
			case record.IsFile(name):
				x.load(name)
			}
		}
	}
}

// relist loads what differs from the directory.
func (x *Index) relist() {
	entries, err := os.ReadDir(x.store.Pods())
	if err != nil {
		x.log.WithError(err).Warn("reading the records")
		return
	}
	for _, e := range entries {
		if record.IsFile(e.Name()) {
			x.load(e.Name())
		}
	}
	x.mu.Lock()
	x.loaded = true
	known := slices.Collect(maps.Keys(x.files))
	x.mu.Unlock()
	for _, name := range known { // their files may have been removed
		x.load(name)
	}
}

// load reads a file again if it is not the known version. The plugin writes each version as a new file, so the inode
// differs.
func (x *Index) load(name string) {
	info, err := os.Lstat(filepath.Join(x.store.Pods(), name))
	x.mu.Lock()
	known := x.files[name]
	fresh := x.loaded
	x.mu.Unlock()
	if err == nil && known != nil && os.SameFile(known.info, info) && known.info.ModTime().Equal(info.ModTime()) {
		return
	}
	var r record.Record
	if err == nil {
		r, err = x.store.Load(name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		if known != nil {
			x.replace(name, nil)
			x.changed(PodID(known.record))
		}
		return
	}
	r.Spec, r.Created = nil, nil // they may be large, and only CHECK and DEL need them
	if known == nil {
		known = &recordFile{}
	}
	file := &recordFile{record: r, info: info}
	if err != nil {
		file.problem = err.Error()
		if known.problem != file.problem {
			x.log.WithError(err).Warn("a record cannot be read; its pod is not marked")
		}
	}
	x.replace(name, file)
	if err == nil {
		x.seen(r, fresh)
	}
	for id := range map[string]bool{PodID(r): true, PodID(known.record): true} {
		x.changed(id)
	}
}

// replace puts a file in the place of what is known of that name. If file is nil, nothing is known of it any more.
func (x *Index) replace(name string, file *recordFile) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if known := x.files[name]; known != nil {
		id := PodID(known.record)
		x.pods[id] = slices.DeleteFunc(x.pods[id], func(f *recordFile) bool { return f == known })
		if len(x.pods[id]) == 0 {
			delete(x.pods, id)
		}
		delete(x.files, name)
	}
	if file != nil {
		id := PodID(file.record)
		x.files[name], x.pods[id] = file, append(x.pods[id], file)
	}
}

// ByPod returns every record that can be read, by PodID.
func (x *Index) ByPod() map[string][]record.Record {
	x.mu.Lock()
	defer x.mu.Unlock()
	records := map[string][]record.Record{}
	for id, files := range x.pods {
		if its := readable(nil, files); len(its) > 0 {
			records[id] = its
		}
	}
	return records
}

// Of returns the records with one of these IDs of their pod.
func (x *Index) Of(ids ...string) (its []record.Record) {
	x.mu.Lock()
	defer x.mu.Unlock()
	for _, id := range ids {
		its = readable(its, x.pods[id])
	}
	return its
}

// readable appends the records of the files that can be read.
func readable(records []record.Record, files []*recordFile) []record.Record {
	for _, f := range files {
		if f.problem == "" {
			records = append(records, f.record)
		}
	}
	return records
}

// Ready reports whether the directory has been read.
func (x *Index) Ready() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.loaded
}
