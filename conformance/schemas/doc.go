// Package schemas compares what the chart renders with the OpenAPI description of Kubernetes' API, without an API
// server.
package schemas
