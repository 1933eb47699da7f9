package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// watch is one of the API server's.
type watch struct {
	of      string
	failing func() (since time.Time, err error) // the time is zero while it stands
}

// watches are all of them. The agent answers from what they have brought, also while they fail: it is ready then, but
// what it knows gets older.
type watches []watch

const (
	// watchGrace is how long a watch may be away without a word: the API server ends each after some minutes, and the next
	// one follows at once. With what client-go takes to notice a connection that is dead (45 s, the settings of
	// golang.org/x/net/http2 in k8s.io/apimachinery/pkg/util/net), a warning comes within a minute.
	watchGrace = 10 * time.Second
	watchLook  = time.Second
)

// failing says which do not stand, for how long and why, and since when; "" if all do.
func (w watches) failing() (text string, since time.Time) {
	var all []string
	for _, one := range w {
		begin, err := one.failing()
		if begin.IsZero() || time.Since(begin) < watchGrace {
			continue
		}
		if since.IsZero() || begin.Before(since) {
			since = begin
		}
		why := "it has ended"
		if err != nil {
			why = strings.ReplaceAll(err.Error(), "\n", " ")
		}
		all = append(all, one.of+": "+why)
	}
	return strings.Join(all, "; "), since
}

// String is what /readyz says of them.
func (w watches) String() string {
	text, since := w.failing()
	if text == "" {
		return "watched"
	}
	return fmt.Sprintf("not watched for %s, so that what is known is as old; %s", time.Since(since).Round(time.Second),
		text)
}

// warn says when they fail, and when they stand again, until the context ends.
func (w watches) warn(ctx context.Context, log *logrus.Logger) {
	var failing time.Time
	for {
		text, since := w.failing()
		switch {
		case text != "" && failing.IsZero():
			failing = since
			log.WithField("since", since.Format(time.RFC3339)).Warn("the API server cannot be watched; it is tried again, and " +
				"meanwhile what is known is answered: " + text)
		case text == "" && !failing.IsZero():
			log.WithField("after", time.Since(failing).Round(time.Second)).Info("the API server is watched again")
			failing = time.Time{}
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(watchLook):
		}
	}
}
