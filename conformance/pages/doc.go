// Package pages pastes the commands of the documentation, as a reader would, into a shell that knows how to check each
// program. Our own programs run, Helm renders charts, and commands that need a cluster are compared with the program's
// own flags.
package pages
