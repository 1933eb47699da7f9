package agent

import (
	"io"

	"github.com/go-logr/logr/funcr"
	"github.com/sirupsen/logrus"
	"k8s.io/klog/v2"
)

// newLogger makes the log, and lets client-go write to it too.
func newLogger(level logrus.Level, format string, out io.Writer) *logrus.Logger {
	log := logrus.New()
	log.SetOutput(out)
	log.SetLevel(level)
	log.SetFormatter(&logrus.TextFormatter{DisableColors: true, FullTimestamp: true})
	if format == "json" {
		log.SetFormatter(&logrus.JSONFormatter{})
	}
	// What client-go has to say is about requests that it repeats by itself; what concerns the agent, the agent says.
	klog.SetLogger(funcr.New(func(_, text string) { log.WithField("from", "client-go").Debug(text) }, funcr.Options{}))
	return log
}
