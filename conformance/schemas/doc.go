// Package schemas holds what the chart renders against the description of Kubernetes' API: no API server is asked.
package schemas
