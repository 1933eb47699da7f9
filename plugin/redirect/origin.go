package redirect

// OriginKind says what kind of thing an answer or a setting was found in.
type OriginKind string

// The kinds.
const (
	OfAnnotation OriginKind = "annotation"           // of the pod
	OfLabel      OriginKind = "label"                // of the pod
	OfNamespace  OriginKind = "namespace-annotation" // an annotation of the pod's namespace
	OfContainer  OriginKind = "container"            // a field of a container
	OfVariable   OriginKind = "variable"             // a variable of a container's environment
	OfPod        OriginKind = "pod"                  // a field of the pod
	OfConfig     OriginKind = "config"               // the plugin's entry, or its default
	OfRuntime    OriginKind = "runtime"              // what the container runtime hands over, or does not
)

// Origin is where an answer or a setting was found.
type Origin struct {
	Kind  OriginKind
	Of    string // name of the container or of the namespace
	Name  string // of the annotation, label, variable, field or key
	Value string // what stands there, as far as it is kept
}

// where says it as an error does.
func (o Origin) where() string {
	switch o.Kind {
	case OfVariable:
		return "container " + o.Of + " env " + o.Name
	case OfContainer:
		return "container " + o.Of + " " + o.Name
	}
	return string(o.Kind) + " " + o.Name
}

// variable returns a variable of the container, which may be nil, as an origin; zero where it has none.
func (c *Container) variable(name string) (from Origin, present bool) {
	if c == nil {
		return from, false
	}
	value, present := c.Env[name]
	if present {
		from = Origin{Kind: OfVariable, Of: c.Name, Name: name, Value: value}
	}
	return from, present
}
