// Package chart tests the Helm chart with Helm 3 and Helm 4 against a real API server: what it renders, what it
// refuses, and that everything it renders is taken. That it works is tested in package e2e.
package chart
