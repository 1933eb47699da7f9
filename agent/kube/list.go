package kube

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/istio-pod-network/controller/plugin/redirect"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// PodsOf returns a source that lists and watches the pods of one node that are not over. It never streams the list
// (WatchList). For a list, the API server finds the pods of the node by an index of its cache. For a stream it goes
// through all pods of the cluster (k8s.io/apiserver/pkg/storage/cacher, getIntervalFromStoreLocked), so agents that
// start at the same time would cost it nodes × pods. The list has no pages, because it comes from that cache. Each pod
// is decoded as it arrives, and only what keep returns stays in memory. gid is the sidecar's group, if a pod sets none.
func (c *Client) PodsOf(node string, gid redirect.ID) cache.ListerWatcher {
	selector := fields.AndSelectors(
		fields.OneTermEqualSelector("spec.nodeName", node),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodSucceeded)),
		fields.OneTermNotEqualSelector("status.phase", string(corev1.PodFailed)),
	).String()
	lw := cache.NewFilteredListWatchFromClient(c.core, podsResource.Resource, "", func(o *metav1.ListOptions) {
		o.FieldSelector = selector
	})
	lw.ListWithContextFunc = func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
		o.FieldSelector = selector
		return c.listPods(ctx, o, gid)
	}
	return whole{cache.ToListerWatcherWithContext(lw)}
}

// whole is a source whose list is never streamed.
type whole struct{ cache.ListerWatcherWithContext }

// List calls the source's ListWithContext.
func (w whole) List(o metav1.ListOptions) (runtime.Object, error) {
	return w.ListWithContext(context.Background(), o)
}

// Watch calls the source's WatchWithContext.
func (w whole) Watch(o metav1.ListOptions) (watch.Interface, error) {
	return w.WatchWithContext(context.Background(), o)
}

// IsWatchListSemanticsUnSupported tells client-go's package watchlist not to stream the list.
func (whole) IsWatchListSemanticsUnSupported() bool { return true }

func (c *Client) listPods(ctx context.Context, o metav1.ListOptions, gid redirect.ID) (*corev1.PodList, error) {
	body, err := c.core.Get().Resource(podsResource.Resource).VersionedParams(&o, metav1.ParameterCodec).
		SetHeader("Accept", runtime.ContentTypeProtobuf).Stream(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }()
	list, err := decodePods(body, gid)
	if err != nil {
		return nil, fmt.Errorf("reading the list of pods: %w", err)
	}
	return list, nil
}

// The encoding is described at https://kubernetes.io/docs/reference/using-api/api-concepts/#protobuf-encoding. A list
// is a magic number and a message Unknown, whose field 2 is the message PodList. There, field 1 is the metadata and
// field 2 a pod.
const (
	protobufMagic = "k8s\x00"
	fieldRaw      = 2
	fieldListMeta = 1
	fieldItem     = 2

	wireVarint = 0
	wireBytes  = 2 // bytes, strings and messages: the length, then that many bytes
)

// maxPod is more than the size of any pod, in bytes: etcd accepts requests of at most 1.5 MiB.
const maxPod = 8 << 20

// decodePods decodes a list pod by pod, and keeps of each what keep returns.
func decodePods(body io.Reader, gid redirect.ID) (*corev1.PodList, error) {
	r := bufio.NewReader(body)
	magic := make([]byte, len(protobufMagic))
	if _, err := io.ReadFull(r, magic); err != nil || string(magic) != protobufMagic {
		return nil, errors.Join(errors.New("it is not "+runtime.ContentTypeProtobuf), err)
	}
	list, found := &corev1.PodList{}, false
	err := eachField(r, func(field uint64, length int64) error {
		if field != fieldRaw {
			return skip(r, length)
		}
		found = true
		raw := &io.LimitedReader{R: r, N: length}
		if err := decodeItems(bufio.NewReader(raw), list, gid); err != nil {
			return err
		}
		if raw.N > 0 {
			return io.ErrUnexpectedEOF
		}
		return nil
	})
	if err == nil && !found {
		err = io.ErrUnexpectedEOF
	}
	return list, err
}

// decodeItems decodes the message PodList.
func decodeItems(r *bufio.Reader, list *corev1.PodList, gid redirect.ID) error {
	var buf []byte // used for all pods: what is decoded has copies
	return eachField(r, func(field uint64, length int64) error {
		if field != fieldListMeta && field != fieldItem {
			return skip(r, length)
		}
		if length > maxPod {
			return fmt.Errorf("a pod has %d bytes, more than %d", length, maxPod)
		}
		buf = slices.Grow(buf[:0], int(length))[:length]
		if _, err := io.ReadFull(r, buf); err != nil {
			return err
		}
		if field == fieldListMeta {
			return list.ListMeta.Unmarshal(buf)
		}
		var pod corev1.Pod
		if err := pod.Unmarshal(buf); err != nil {
			return err
		}
		list.Items = append(list.Items, *keep(&pod, gid))
		return nil
	})
}

// eachField reads a message to the end of r. It calls take for every field that has a length. take has to read that
// many bytes.
func eachField(r *bufio.Reader, take func(field uint64, length int64) error) error {
	for {
		tag, err := binary.ReadUvarint(r)
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		n, err := binary.ReadUvarint(r)
		if err != nil {
			return errors.Join(io.ErrUnexpectedEOF, err)
		}
		switch field, wire := tag>>3, tag&7; {
		case wire == wireVarint:
		case wire != wireBytes || n > math.MaxInt64:
			return fmt.Errorf("field %d has an unknown encoding", field)
		default:
			if err := take(field, int64(n)); err != nil {
				return err
			}
		}
	}
}

// skip discards length bytes.
func skip(r *bufio.Reader, length int64) error {
	_, err := io.CopyN(io.Discard, r, length)
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return err
}
