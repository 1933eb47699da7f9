package main

import (
	"bytes"
	"crypto"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"

	"github.com/sigstore/sigstore/pkg/cryptoutils"
	"github.com/sigstore/sigstore/pkg/signature"
)

// Environment variables, with cosign's names.
const (
	privateKeyEnv = "COSIGN_PRIVATE_KEY"
	passwordEnv   = "COSIGN_PASSWORD"
	publicKeyEnv  = "COSIGN_PUBLIC_KEY"
)

// signer returns the private key in the environment, nil if there is none.
func (o options) signer() (signature.SignerVerifier, error) {
	text := o.env(privateKeyEnv)
	if text == "" || o.unsigned {
		return nil, nil
	}
	key, err := cryptoutils.UnmarshalPEMToPrivateKey([]byte(text), func(bool) ([]byte, error) {
		return []byte(o.env(passwordEnv)), nil
	})
	if err != nil {
		return nil, misusef("%s: it cannot be read with the password of %s: %w; valid: the text of a private key (PEM)",
			privateKeyEnv, passwordEnv, err)
	}
	keys, err := signature.LoadSignerVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, misusef("%s: %w", privateKeyEnv, err)
	}
	return keys, nil
}

// verifier returns the public key to verify with, nil with --unsigned.
func (o options) verifier() (signature.Verifier, error) {
	if o.unsigned {
		if o.key != "" {
			return nil, misusef("--unsigned and --key contradict each other")
		}
		return nil, nil
	}
	text, from := []byte(o.env(publicKeyEnv)), publicKeyEnv
	if o.key != "" {
		data, err := os.ReadFile(o.key)
		if err != nil {
			return nil, misusef("--key: %w", err)
		}
		text, from = data, "--key"
	}
	if len(text) == 0 {
		keys, err := o.signer()
		if err == nil && keys == nil {
			err = misusef("no key to judge signatures by; valid: --key FILE, %s, or --unsigned", publicKeyEnv)
		}
		return keys, err
	}
	key, err := cryptoutils.UnmarshalPEMToPublicKey(text)
	if err != nil {
		return nil, misusef("%s: %w; valid: a public key (PEM)", from, err)
	}
	v, err := signature.LoadVerifier(key, crypto.SHA256)
	if err != nil {
		return nil, misusef("%s: %w", from, err)
	}
	return v, nil
}

// sign signs the list of checksums, and so all files in it, as cosign sign-blob does.
func sign(keys signature.Signer, dir string) error {
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return err
	}
	raw, err := keys.SignMessage(bytes.NewReader(sums))
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, signatureFile), []byte(base64.StdEncoding.EncodeToString(raw)), 0o644)
}

// verifySigned returns an error unless the key has signed the list of checksums.
func verifySigned(v signature.Verifier, dir string) error {
	sums, err := os.ReadFile(filepath.Join(dir, sumsFile))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(filepath.Join(dir, signatureFile))
	if errors.Is(err, os.ErrNotExist) {
		return notWellf("%s: there is no %s: nobody has signed this", dir, signatureFile)
	}
	if err != nil {
		return err
	}
	raw, err := base64.StdEncoding.DecodeString(string(bytes.TrimSpace(text)))
	if err == nil {
		err = v.VerifySignature(bytes.NewReader(raw), bytes.NewReader(sums))
	}
	if err != nil {
		return notWellf("%s is no signature of %s by this key: %w", signatureFile, sumsFile, err)
	}
	return nil
}
