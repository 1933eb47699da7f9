package agent

import (
	"io"

	"github.com/go-logr/logr/funcr"
	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// newLogger returns the log. It also makes client-go write to it.
func newLogger(level logrus.Level, format string, out io.Writer) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(out)
	log.SetLevel(level)
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	if format == "json" {
		log.SetFormatter(&logrus.JSONFormatter{})
	}
	// client-go logs requests that it repeats itself, so debug is enough. The agent logs what concerns it.
	klog.SetLogger(funcr.New(func(_, text string) { log.WithField("from", "client-go").Debug(text) }, funcr.Options{}))
	return log
}
