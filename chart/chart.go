// Package chart has what the operator's tool has to know of the Helm chart before it is installed.
package chart

import _ "embed"

// Presets is what the chart sets for each distribution.
//
//go:embed istio-pod-network-controller/files/presets.yaml
var Presets []byte

// About is the chart's description of itself, which names the tag of the images.
//
//go:embed istio-pod-network-controller/Chart.yaml
var About []byte
