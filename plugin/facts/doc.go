// Package facts is the protocol of the agent's socket: how the plugin, which holds no credential, learns what the API
// server knows of the pod it is called for. It has the wire types, the client (Ask), and the frame of a server (Listen,
// Serve); what is answered is the agent's business.
//
// A stream socket carries one JSON line each way, and one deadline covers all of it:
//
//	{"version":1,"op":"pod","namespace":"shop","name":"cart-0","uid":"0f3b…"}
//	{"version":1,"pod":{…redirect.Pod…}}   or   {"version":1,"error":{"code":11,"message":"…"}}
//
// Both ends are root on one node and prove it to each other: the socket lies in a directory only root can write to, and
// SO_PEERCRED, which the kernel fills in, has to say uid 0 of the peer. The answer decides which packet rules a pod
// gets, so an answer from anybody else would be a way around the mesh.
//
// Keys may be added under the same version, and readers ignore the ones they do not know. An unknown version is an
// error that names both (IsVersion), never a guess. A server answers a request in the request's own version.
//
// The types build for every system; client and server are in the files for Linux.
package facts
