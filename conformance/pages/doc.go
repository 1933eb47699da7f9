// Package pages pastes the commands of the documentation as a reader would, into a shell that knows what becomes of
// each program: our own programs run, charts are rendered by Helm, and what would need a cluster is held against the
// program's own flags.
package pages
