// Package chart embeds the parts of the Helm chart that the operator's tool needs before an installation.
package chart

import _ "embed"

// Presets is files/presets.yaml: the chart's settings for each distribution.
//
//go:embed istio-pod-network-controller/files/presets.yaml
var Presets []byte

// About is Chart.yaml. Its appVersion is the tag of the images.
//
//go:embed istio-pod-network-controller/Chart.yaml
var About []byte
