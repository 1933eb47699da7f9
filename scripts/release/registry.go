package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/remote/transport"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Media type and annotation of cosign's signatures. A signature is a manifest beside the image, with a tag made of the
// image's digest.
const (
	simpleSigning       types.MediaType = "application/vnd.dev.cosign.simplesigning.v1+json"
	signatureAnnotation string          = "dev.cosignproject.cosign/signature"
)

// reach returns options with the credentials of docker login, helm or cosign.
func reach(ctx context.Context) []remote.Option {
	return []remote.Option{remote.WithContext(ctx), remote.WithAuthFromKeychain(authn.DefaultKeychain)}
}

// tag returns the tag of an artifact in the registry.
func (o options) tag(artifact string) (name.Tag, error) {
	return name.NewTag(o.registry + "/" + artifact + ":" + o.version)
}

// beside returns the tag of a digest's signatures.
func beside(d name.Digest) name.Tag {
	return d.Context().Tag(strings.Replace(d.DigestStr(), ":", "-", 1) + ".sig")
}

// push pushes the directory's images and chart to the registry, and signs them.
func (o options) push(ctx context.Context) error {
	made, err := o.verifyFiles()
	if err != nil {
		return err
	}
	keys, err := o.signer()
	if err == nil && keys == nil && !o.unsigned {
		err = misusef("no key to sign with; valid: %s, or --unsigned", privateKeyEnv)
	}
	if err != nil {
		return err
	}
	work, err := os.MkdirTemp("", "istio-pod-network-push-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	for _, artifact := range sorted(made.artifacts) {
		c, err := openLayout(filepath.Join(o.dir, artifact+"-"+o.version+layoutSuffix), work)
		if err != nil {
			return err
		}
		to, err := o.tag(artifact)
		if err != nil {
			return err
		}
		if c.index != nil {
			err = remote.WriteIndex(to, c.index, reach(ctx)...)
		} else {
			err = remote.Write(to, c.image, reach(ctx)...)
		}
		if err != nil {
			return fmt.Errorf("pushing %s: %w", to, err)
		}
		digest := to.Context().Digest(c.digest.String())
		if keys != nil {
			if err := signRemote(ctx, keys, digest); err != nil {
				return fmt.Errorf("signing %s: %w", digest, err)
			}
		}
		o.say("release: pushed %s@%s", to, c.digest)
	}
	return nil
}

// signRemote adds a signature for a digest, unless this key has signed it.
func signRemote(ctx context.Context, keys signature.SignerVerifier, digest name.Digest) error {
	err := verifyRemote(ctx, keys, digest)
	var bad notWell
	if err == nil || !errors.As(err, &bad) {
		return err
	}
	payload, raw, err := signature.SignImage(keys, digest, nil)
	if err != nil {
		return err
	}
	all := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	if there, err := remote.Image(beside(digest), reach(ctx)...); err == nil {
		all = there // it may have other signatures
	} else if !missing(err) {
		return err
	}
	all, err = mutate.Append(all, mutate.Addendum{
		Layer:       static.NewLayer(payload, simpleSigning),
		Annotations: map[string]string{signatureAnnotation: base64.StdEncoding.EncodeToString(raw)},
	})
	if err != nil {
		return err
	}
	return remote.Write(beside(digest), all, reach(ctx)...)
}

// missing reports whether the registry answered that something does not exist.
func missing(err error) bool {
	var answer *transport.Error
	return errors.As(err, &answer) && answer.StatusCode == http.StatusNotFound
}

// verifyRegistry returns an error unless the registry has the directory's artifacts under the version, signed by the
// key.
func (o options) verifyRegistry(ctx context.Context, made origin) error {
	v, err := o.verifier()
	if err != nil {
		return err
	}
	for _, artifact := range sorted(made.artifacts) {
		at, err := o.tag(artifact)
		if err != nil {
			return err
		}
		got, err := remote.Get(at, reach(ctx)...)
		if missing(err) {
			return notWellf("%s is not there", at)
		}
		if err != nil {
			return fmt.Errorf("asking for %s: %w", at, err)
		}
		if want := made.artifacts[artifact]; got.Digest.String() != want {
			return notWellf("%s is %s there, and %s in %s", at, got.Digest, want, o.dir)
		}
		if v == nil {
			continue
		}
		if err := verifyRemote(ctx, v, at.Context().Digest(got.Digest.String())); err != nil {
			return err
		}
	}
	return nil
}

// verifyRemote returns an error unless the key has signed the digest.
func verifyRemote(ctx context.Context, v signature.Verifier, digest name.Digest) error {
	signatures, err := remote.Image(beside(digest), reach(ctx)...)
	if missing(err) {
		return notWellf("%s: nobody has signed it", digest)
	}
	if err != nil {
		return fmt.Errorf("asking for the signatures of %s: %w", digest, err)
	}
	manifest, err := signatures.Manifest()
	if err != nil {
		return err
	}
	for _, described := range manifest.Layers {
		if described.MediaType != simpleSigning {
			continue
		}
		layer, err := signatures.LayerByDigest(described.Digest)
		if err != nil {
			return err
		}
		payload, err := readLayer(layer)
		if err != nil {
			return err
		}
		raw, err := base64.StdEncoding.DecodeString(described.Annotations[signatureAnnotation])
		if err != nil {
			continue
		}
		if signed, _, err := signature.VerifyImageSignature(judge{v}, payload, raw); err == nil &&
			signed.DigestStr() == digest.DigestStr() {
			return nil
		}
	}
	return notWellf("%s: this key has not signed it", digest)
}

// judge makes a verifier fit where the library also wants a signer.
type judge struct{ signature.Verifier }

// SignMessage returns an error.
func (judge) SignMessage(io.Reader, ...signature.SignOption) ([]byte, error) {
	return nil, errors.New("this is a public key")
}

// readLayer returns a layer's content. It is limited, because a signature's payload is small.
func readLayer(layer v1.Layer) ([]byte, error) {
	content, err := layer.Compressed()
	if err != nil {
		return nil, err
	}
	defer func() { _ = content.Close() }()
	return io.ReadAll(io.LimitReader(content, 1<<20))
}
