// Package chart tests the Helm chart with Helm 3 and Helm 4 against a real API server: what it renders, what it
// rejects, and that the API server accepts everything rendered. Package e2e tests that it works.
package chart
