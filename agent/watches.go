package agent

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// watch is one watch on the API server.
type watch struct {
	of      string
	failing func() (since time.Time, err error) // since is zero while the watch works
}

// watches are all watches of the agent. While they fail, the agent stays ready and answers with what it knows, which
// gets older.
type watches []watch

const (
	// watchGrace is how long a watch may be away before that is reported. The API server ends each watch after some
	// minutes, and the next one starts at once. client-go notices a dead connection after 45 s (the HTTP/2 settings in
	// k8s.io/apimachinery/pkg/util/net), so a warning comes within a minute.
	watchGrace = 10 * time.Second
	watchLook  = time.Second
)

// failing returns which watches fail and why, and since when; "" if all work.
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

// String is the text in /readyz.
func (w watches) String() string {
	text, since := w.failing()
	if text == "" {
		return "watched"
	}
	return fmt.Sprintf("not watched for %s, so that what is known is as old; %s", time.Since(since).Round(time.Second),
		text)
}

// warn logs once when watches fail, and once when all work again, until ctx ends.
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
