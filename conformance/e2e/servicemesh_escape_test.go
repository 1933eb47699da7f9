package e2e

// escape runs an app beside Envoy that makes every known attempt to get around it, towards a host that the mesh does
// not allow. The peer answers none of them. It answers each attempt of a pod outside the mesh, which proves that the
// attempts are real.
func (m *serviceMesh) escape(r *rig) {
	home := r.namespace
	r.create(attacked(r.appPod("plain")))
	r.namespace = m.namespace
	r.guests(attacked(m.app(r, "attacked", "attacked", "v1")))
	r.ready("attacked")
	r.notEscaped("attacked")
	m.speaks(r, "attacked")
	m.keepsPlaintextOut(r, "attacked")
	m.keeps(r, "attacked")
	r.namespace = home
	r.wereReal("plain")
}
