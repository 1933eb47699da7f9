// Package deps holds no code, only the test that imports go the right way, that nothing heavy comes in by a detour, and
// that the plugin stays small. The plugin is executed for every pod of a node, so what it links is paid at every ADD.
package deps
