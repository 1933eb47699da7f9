package install

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/istio-pod-network/controller/internal/await"
	"github.com/istio-pod-network/controller/internal/entry"
)

// version returns the n-th configuration of a hostile primary. The versions differ in length too.
func version(n int) string {
	return fmt.Sprintf("{\n  \"name\": \"net\", \"version\": %d, \"pad\": %q,\n  \"plugins\": [\n    {\n      "+
		"\"type\": \"ptp\"\n    }\n  ]\n}\n",
		n, strings.Repeat("x", n*37%900))
}

// seen returns which version a reader finds, and whether our entry is chained.
func seen(data []byte) (n int, chained bool, err error) {
	var c struct {
		Version int
		Pad     string
		Plugins []struct{ Type string }
	}
	if err := json.Unmarshal(data, &c); err != nil {
		return 0, false, err
	}
	if len(c.Pad) != c.Version*37%900 || len(c.Plugins) == 0 || c.Plugins[0].Type != "ptp" || len(c.Plugins) > 2 {
		return 0, false, fmt.Errorf("not complete: %s", data)
	}
	return c.Version, len(c.Plugins) == 2 && c.Plugins[1].Type == entry.Type, nil
}

// keep runs a Keeper until the test ends.
func keep(t *testing.T, k *Keeper) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- k.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// patience limits a wait. How long it takes is not tested.
const patience = time.Minute

// A primary writes its configuration 500 times, at random moments, by a rename. Every reader finds it valid and
// complete at every moment. Every version that stays for a while gets our entry, and none is replaced by an older one.
func TestHostilePrimary(t *testing.T) {
	n := newNode(t, "10-net.conflist", version(0))
	path := filepath.Join(n.ConfDir, "10-net.conflist")
	var failed atomic.Pointer[error]
	keep(t, &Keeper{Config: n.Config, contest: unbounded, Report: func(p Pass) {
		// This primary may change its file at every step of a pass. The next pass continues.
		if err := p.Err; err != nil && !errors.Is(err, errUnsteady) {
			failed.Store(&err)
		}
	}})
	stop := make(chan struct{})
	var reader sync.WaitGroup
	var reads int
	var longest, since time.Duration
	start := time.Now()
	reader.Go(func() {
		open := true
		for ; ; reads++ {
			data, err := os.ReadFile(path)
			if err != nil {
				t.Error(err)
				return
			}
			_, chained, err := seen(data)
			if err != nil {
				t.Error(err)
				return
			}
			now := time.Since(start)
			if chained {
				open = false
			} else if !open {
				open, since = true, now
			}
			if open && reads > 0 {
				longest = max(longest, now-since)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	waited := 0
	for i := 1; i <= 500; i++ {
		temp := filepath.Join(n.ConfDir, "primary.tmp")
		if err := os.WriteFile(temp, []byte(version(i)), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(temp, path); err != nil {
			t.Fatal(err)
		}
		time.Sleep(rand.N(3 * time.Millisecond))
		if i%10 == 0 || i == 500 {
			waited++
			await.Eventually(t, patience, fmt.Sprintf("version %d chained", i), func() bool {
				data, err := os.ReadFile(path)
				got, chained, err2 := seen(data)
				return err == nil && err2 == nil && chained && got == i
			})
		}
	}
	close(stop)
	reader.Wait()
	if err := failed.Load(); err != nil {
		t.Errorf("a pass failed: %v", *err)
	}
	t.Logf("500 versions, %d waited for; %d reads, all valid and complete; longest time without our entry: %v", waited,
		reads, longest)
	await.Eventually(t, patience, "tidy", func() bool { entries, _ := os.ReadDir(n.ConfDir); return len(entries) == 1 })
}

// A primary writes in place, slowly: its last version is there in the end, with our entry.
func TestInPlaceWriter(t *testing.T) {
	n := newNode(t, "10-net.conflist", version(0))
	path := filepath.Join(n.ConfDir, "10-net.conflist")
	keep(t, &Keeper{Config: n.Config, contest: unbounded})
	for i := 1; i <= 60; i++ {
		flags := os.O_WRONLY | os.O_TRUNC
		if i%3 == 0 {
			flags = os.O_WRONLY // truncated only at the end
		}
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			t.Fatal(err)
		}
		contents := version(i)
		for len(contents) > 0 {
			part := min(len(contents), 1+rand.N(400))
			if _, err := f.WriteString(contents[:part]); err != nil {
				t.Fatal(err)
			}
			contents = contents[part:]
			time.Sleep(rand.N(time.Millisecond))
		}
		if err := f.Truncate(int64(len(version(i)))); err != nil {
			t.Fatal(err)
		}
		f.Close()
		await.Eventually(t, patience, fmt.Sprintf("version %d chained", i), func() bool {
			data, err := os.ReadFile(path)
			got, chained, err2 := seen(data)
			return err == nil && err2 == nil && chained && got == i
		})
	}
}
