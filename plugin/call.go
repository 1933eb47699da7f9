package plugin

import (
	"io"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/istio-pod-network/controller/plugin/redirect"
	"github.com/sirupsen/logrus"
)

// call is one CNI call. It logs exactly one line.
type call struct {
	plugin
	verb    string
	started time.Time
	level   logrus.Level  // the least level that is logged; Info until the configuration is read
	asLevel logrus.Level  // the level of the line
	fields  logrus.Fields // the fields of the line
	message string
}

func (p plugin) newCall(verb string, args *skel.CmdArgs) *call {
	c := &call{plugin: p, verb: verb, started: p.now(), level: logrus.InfoLevel, asLevel: logrus.InfoLevel,
		fields: logrus.Fields{}}
	c.message = "done"
	if args.ContainerID != "" {
		c.fields["sandbox"] = args.ContainerID
		c.fields["ifname"] = args.IfName
	}
	return c
}

// configure parses the configuration and notes its network and log level for the log line. The error is not a CNI error
// yet: most callers report it as code 7.
func (c *call) configure(args *skel.CmdArgs) (config, error) {
	cfg, err := parseConfig(args.StdinData)
	c.level = cfg.logLevel
	if cfg.network != "" {
		c.fields["network"] = cfg.network
	}
	return cfg, err
}

func (c *call) pod(pod redirect.Pod) {
	if pod.Name != "" {
		c.fields["pod"] = pod.Namespace + "/" + pod.Name
	}
}

// decided adds the decision to the log line.
func (c *call) decided(d redirect.Decision) {
	c.fields["decision"], c.fields["reason"] = string(d.Verdict), string(d.Reason)
}

// warn turns the line into a warning. The call still succeeds. A later warning replaces an earlier one.
func (c *call) warn(what string, err error) {
	c.asLevel, c.message = logrus.WarnLevel, what
	c.fields["error"] = err.Error()
}

// finish logs the line and returns err as a CNI error, with a hint to `explain` if the pod is known.
func (c *call) finish(err error) error {
	if err != nil {
		cni := asCNI(err)
		if pod, named := c.fields["pod"].(string); named {
			cni.Msg += "; see: istio-pod-networkctl explain " + pod
		}
		c.asLevel, c.message = logrus.ErrorLevel, cni.Msg
		c.fields["code"] = cni.Code
		err = cni
	}
	c.fields["verb"] = c.verb
	c.fields["ms"] = float64(c.now().Sub(c.started).Microseconds()) / 1000
	logger(c.stderr, c.level).WithFields(c.fields).Log(c.asLevel, c.message)
	return err
}

// logger returns a logger without colours and time stamps: the runtime that collects the lines adds the time.
func logger(out io.Writer, level logrus.Level) *logrus.Logger {
	l := logrus.New()
	l.SetOutput(out)
	l.SetLevel(level)
	l.SetFormatter(&logrus.TextFormatter{DisableColors: true, DisableTimestamp: true})
	return l
}
