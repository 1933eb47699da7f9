package e2e

// An app beside Envoy tries every way around it that is known, towards a host that the mesh does not let it call: the
// peer answers none. It answers each attempt of a pod outside the mesh, so each is known to be one.
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
