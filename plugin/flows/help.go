package flows

const help = `proves by real connections that a pod's traffic goes through its sidecar

Runs in pods that are made for that, as any user, without capabilities.

    istio-pod-network-flows app [flags]      serves at 8080 and 8090, makes the flows of an app, and ends
    istio-pod-network-flows sidecar [flags]  stands in for the sidecar in the container istio-proxy, makes its flows
    istio-pod-network-flows peer             is whom they call, in a pod outside the mesh
    istio-pod-network-flows serve            serves as the app does, beside Istio's own sidecar, and calls nobody

  --peer ADDRESS,...     the peer's address, one of each IP family. Without it the app calls 192.0.2.1 and 2001:db8::1,
                         with a hop limit of 1, and the sidecar calls its own pod
  --outside              the pod is outside the mesh: everything has to arrive unredirected (the control)
  --dns                  the sidecar captures DNS
  --families all         which of the pod's IP families are captured: all, or with the plugin's redirect.families: proxy
                         IPv4 where the pod has it
  --name app             who calls, as the peer prints it
  --quit                 app: has the sidecar quit in the end; sidecar: does so
  --timeout 60s          app: how long the sidecar may take to be ready
  --proxy-uid 1337       who is taken for the sidecar: its flows are not made by another user, as where a platform gives
                         all containers of a pod one user
  --envoy                app: the sidecar is Istio's own, in a namespace with REGISTRY_ONLY and STRICT. It must let none
                         of the app's calls reach the peer, nor of the peer's the app
  --mtls ADDRESS:PORT    with --envoy: the app's address in the mesh, which has to know this pod's certificate
  --identity SUFFIX      with --envoy: the end of the SPIFFE ID of all pods of the mesh, as /ns/NAMESPACE/sa/ACCOUNT
  --ask NAME             with --envoy and --dns: for which name
  --outbound-port 15001, --inbound-port 15006, --dns-port 15053   where the sidecar listens
  --help, --version

With ISTIO_POD_NETWORK_FLOWS_SECRET in the environment of all pods of a run, they know each other: no stranger's answer
counts, and no stranger is answered or told of. It is not known to who may only see their calls.

Each flow is a line of JSON on standard output: who had to answer, and who did. The peer prints who has reached it. Exit
codes: 0 all flows are as they have to be; 1 one is not, or nothing could be proven; 2 wrong arguments.
`
