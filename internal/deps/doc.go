// Package deps has only tests: imports go the right way, nothing large is imported indirectly, and the plugin stays
// small. The plugin runs for every pod of a node, so every ADD pays for what it links.
package deps
