package kube

import (
	"context"
	"errors"
	"net/url"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/watchlist"
)

// Watched is what is listed and watched, and knows whether it is watched at the moment. client-go repeats for ever what
// fails, and calls a handler of errors for some of the failures only (tools/cache/reflector.go: a refused connection is
// none of them).
type Watched struct {
	source cache.ListerWatcherWithContext
	deaf   bool // the source cannot stream a list

	mu    sync.Mutex
	since time.Time // when the last watch ended, or the first one was tried for; zero while there is one
	err   error     // of the last try
}

func newWatched(source cache.ListerWatcher) *Watched {
	return &Watched{source: cache.ToListerWatcherWithContext(source),
		deaf: watchlist.DoesClientNotSupportWatchListSemantics(source)}
}

// Cache is what all caches of the API server's objects have in common.
type Cache struct {
	watched  *Watched
	informer cache.SharedIndexInformer
}

// newCache makes one of what source lists and watches, which are objects like that one. It keeps of each what keep
// returns.
func newCache[T runtime.Object](
	source cache.ListerWatcher, like T, by cache.Indexers, keep func(T) T,
) (Cache, error) {
	watched := newWatched(source)
	informer := cache.NewSharedIndexInformer(watched, like, 0, by)
	return Cache{watched, informer}, informer.SetTransform(func(object any) (any, error) {
		if full, ok := object.(T); ok {
			return keep(full), nil
		}
		return object, nil
	})
}

// Run lists and watches until the context ends.
func (c Cache) Run(ctx context.Context) { c.informer.RunWithContext(ctx) }

// Synced reports whether the first list has come.
func (c Cache) Synced() bool { return c.informer.HasSynced() }

// Failing is since when nothing is watched, and why: see Watched.
func (c Cache) Failing() (since time.Time, err error) { return c.watched.Failing() }

// Failing is since when nothing is watched, and why the last try failed. The time is zero while there is a watch, and
// before the first try.
func (w *Watched) Failing() (since time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.since, w.err
}

// fails takes note of a try that failed, or with nil of a watch that has ended.
func (w *Watched) fails(err error) {
	var request *url.Error // which has the whole URL in its text
	if errors.As(err, &request) {
		err = request.Err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.since.IsZero() {
		w.since = time.Now()
	}
	if err != nil {
		w.err = err
	}
}

// begun takes note of a watch.
func (w *Watched) begun() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.err = time.Time{}, nil
}

// List is that of the source.
func (w *Watched) List(o metav1.ListOptions) (runtime.Object, error) {
	return w.ListWithContext(context.Background(), o)
}

// Watch is that of the source.
func (w *Watched) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return w.WatchWithContext(context.Background(), o)
}

// ListWithContext is that of the source.
func (w *Watched) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list, err := w.source.ListWithContext(ctx, o)
	if err != nil && ctx.Err() == nil {
		w.fails(err)
	}
	return list, err
}

// WatchWithContext is that of the source.
func (w *Watched) WatchWithContext(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
	watching, err := w.source.WatchWithContext(ctx, o)
	switch {
	case err == nil:
		w.begun()
		return &ending{watching, func() { w.fails(nil) }}, nil
	case ctx.Err() == nil:
		w.fails(err)
	}
	return nil, err
}

// IsWatchListSemanticsUnSupported is what package watchlist asks for.
func (w *Watched) IsWatchListSemanticsUnSupported() bool { return w.deaf }

// ending is a watch that tells when it ends: who reads from it stops it then.
type ending struct {
	watch.Interface
	ended func()
}

// Stop ends it.
func (e *ending) Stop() {
	e.Interface.Stop()
	e.ended()
}
