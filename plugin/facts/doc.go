// Package facts is the protocol of the agent's socket. By it the plugin, which has no credential, learns what the API
// server knows of a pod. The package has the types of the messages, the client (Ask) and the server (Listen, Serve).
// The agent finds the answers.
//
// A connection on the stream socket carries one line of JSON each way:
//
//	{"version":1,"op":"pod","namespace":"shop","name":"cart-0","uid":"0f3b…"}
//	{"version":1,"pod":{…redirect.Pod…}}   or   {"version":1,"error":{"code":11,"message":"…"}}
//
// Both sides run as root on the same node, and verify it. Only root can write to the socket's directory, and
// SO_PEERCRED (unix(7)) has to name uid 0. The answer decides which packet rules a pod gets, so an answer from anybody
// else could let a pod bypass the mesh.
//
// A release may add keys without a new version, and readers ignore unknown keys. An unknown version is an error that
// names both versions (IsVersion). A server answers in the version of the request.
//
// The types build for every system. Client and server build for Linux only.
package facts
