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

// Watched is a source that knows whether it is watched at the moment. client-go repeats failed lists and watches for
// ever, but calls the handler for watch errors for some failures only, for example not for a refused connection
// (tools/cache/reflector.go).
type Watched struct {
	source cache.ListerWatcherWithContext
	deaf   bool // the source cannot stream a list

	mu    sync.Mutex
	since time.Time // when the last watch ended or the first attempt was made; zero while there is a watch
	err   error     // of the last attempt
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

// newCache returns a cache of the objects that source lists and watches. like is an object of their type. The cache has
// what keep returns for each object.
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

// Run lists and watches until ctx ends.
func (c Cache) Run(ctx context.Context) { c.informer.RunWithContext(ctx) }

// Synced reports whether the first list has come.
func (c Cache) Synced() bool { return c.informer.HasSynced() }

// Failing returns what Watched.Failing returns.
func (c Cache) Failing() (since time.Time, err error) { return c.watched.Failing() }

// Failing returns since when there is no watch, and the error of the last attempt. The time is zero while there is a
// watch, and before the first attempt.
func (w *Watched) Failing() (since time.Time, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.since, w.err
}

// fails records a failed attempt. If err is nil, it records the end of a watch.
func (w *Watched) fails(err error) {
	var request *url.Error // its text has the whole URL
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

// begun records that a watch has started.
func (w *Watched) begun() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.since, w.err = time.Time{}, nil
}

// List calls the source's ListWithContext.
func (w *Watched) List(o metav1.ListOptions) (runtime.Object, error) {
	return w.ListWithContext(context.Background(), o)
}

// Watch calls the source's WatchWithContext.
func (w *Watched) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return w.WatchWithContext(context.Background(), o)
}

// ListWithContext lists from the source and records failures.
func (w *Watched) ListWithContext(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
	list, err := w.source.ListWithContext(ctx, o)
	if err != nil && ctx.Err() == nil {
		w.fails(err)
	}
	return list, err
}

// WatchWithContext starts a watch on the source, and records failures and the end of the watch.
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

// IsWatchListSemanticsUnSupported tells client-go's package watchlist whether the source can stream a list.
func (w *Watched) IsWatchListSemanticsUnSupported() bool { return w.deaf }

// ending is a watch that reports its end: the reflector calls Stop when it stops reading.
type ending struct {
	watch.Interface
	ended func()
}

// Stop stops the watch and reports that.
func (e *ending) Stop() {
	e.Interface.Stop()
	e.ended()
}
