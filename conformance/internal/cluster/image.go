package cluster

import (
	"archive/tar"
	"bytes"
	"cmp"
	"crypto/sha256"
	"debug/elf"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// File is a file of an image: the path that it is copied from, its path in the image, without the first slash, and its
// file capabilities (capabilities(7)).
type File struct {
	Source, Path string
	Capabilities []uint
}

// Image writes an image archive in the format of `docker save`. All files are executable. The image's processes run as
// user, a numeric ID, or as root if user is empty.
func Image(archive, name, user string, contents []File, entrypoint ...string) error {
	var layer bytes.Buffer
	files := tar.NewWriter(&layer)
	for _, f := range contents {
		data, err := os.ReadFile(f.Source)
		if err == nil {
			err = add(files, f.Path, 0o755, data, f.Capabilities...)
		}
		if err != nil {
			return err
		}
	}
	if err := files.Close(); err != nil {
		return err
	}
	config, err := json.Marshal(map[string]any{
		"architecture": runtime.GOARCH, "os": "linux", "config": map[string]any{"Entrypoint": entrypoint, "User": user},
		"rootfs": map[string]any{"type": "layers",
			"diff_ids": []string{fmt.Sprintf("sha256:%x", sha256.Sum256(layer.Bytes()))}},
	})
	if err != nil {
		return err
	}
	manifest, err := json.Marshal([]map[string]any{{"Config": "config.json", "RepoTags": []string{name},
		"Layers": []string{"layer.tar"}}})
	if err != nil {
		return err
	}
	out, err := os.Create(archive)
	if err != nil {
		return err
	}
	defer out.Close()
	image := tar.NewWriter(out)
	for _, f := range []struct {
		name string
		data []byte
	}{{"manifest.json", manifest}, {"config.json", config}, {"layer.tar", layer.Bytes()}} {
		if err := add(image, f.name, 0o644, f.data); err != nil {
			return err
		}
	}
	return image.Close()
}

// Linked returns a program of this machine, at a path in the image, and the libraries that it is linked to, at their
// paths on this machine.
func Linked(program, path string) ([]File, error) {
	all := []File{{Source: program, Path: path}}
	if static, err := isStatic(program); err != nil || static {
		return all, err
	}
	out, err := exec.Command("ldd", program).CombinedOutput()
	if err != nil || strings.Contains(string(out), "not found") { // ldd also exits with 0 if a library is missing
		return nil, fmt.Errorf("ldd %s: %w: %s", program, cmp.Or(err, errors.New("libraries are missing")), out)
	}
	for word := range strings.FieldsSeq(string(out)) {
		if filepath.IsAbs(word) && !strings.HasSuffix(word, ":") {
			all = append(all, File{Source: word, Path: word[1:]})
		}
	}
	return all, nil
}

// isStatic reports whether a program has no dynamic linker (PT_INTERP).
func isStatic(program string) (bool, error) {
	file, err := elf.Open(program)
	if err != nil {
		return false, fmt.Errorf("%s: %w", program, err)
	}
	defer func() { _ = file.Close() }()
	return !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP }), nil
}

func add(w *tar.Writer, name string, mode int64, data []byte, capabilities ...uint) error {
	header := tar.Header{Name: name, Mode: mode, Size: int64(len(data)), Format: tar.FormatUSTAR}
	if len(capabilities) > 0 {
		header.Format = tar.FormatPAX
		header.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": attribute(capabilities)}
	}
	if err := w.WriteHeader(&header); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

// attribute returns the value of the extended attribute security.capability with permitted and effective capabilities:
// struct vfs_cap_data, version 2 (linux/capability.h).
func attribute(capabilities []uint) string {
	const version, effective = 0x02000000, 1
	var permitted uint64
	for _, c := range capabilities {
		permitted |= 1 << c
	}
	data := binary.LittleEndian.AppendUint32(nil, version|effective)
	data = binary.LittleEndian.AppendUint32(data, uint32(permitted))
	data = binary.LittleEndian.AppendUint32(data, 0) // inheritable
	data = binary.LittleEndian.AppendUint32(data, uint32(permitted>>32))
	return string(binary.LittleEndian.AppendUint32(data, 0))
}
