package conflist

// ours is our entry in all tests.
var ours = []byte(`{"type": "istio-pod-network", "logLevel": "info"}`)
