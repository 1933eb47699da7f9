// Package kept keeps what a long run has measured, so that one that was ended goes on: a file whose first line says of
// what, and which has a line for each thing that was measured, all in JSON. Without a path nothing is kept.
package kept

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrNothing is of a file that is not there, or has no whole line.
var ErrNothing = errors.New("nothing was measured yet")

// Read returns what a file has: what it is of, and its other lines. A last line that was not written to its end is
// none.
func Read[Of, Line any](path string) (of Of, lines []Line, err error) {
	data, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return of, nil, err
	}
	data = whole(data)
	if len(data) == 0 {
		return of, nil, fmt.Errorf("%s: %w", path, ErrNothing)
	}
	number := 0
	for text := range bytes.Lines(data) {
		number++
		var line Line
		if number == 1 {
			err = json.Unmarshal(text, &of)
		} else if err = json.Unmarshal(text, &line); err == nil {
			lines = append(lines, line)
		}
		if err != nil {
			return of, nil, fmt.Errorf("%s: line %d: %w", path, number, err)
		}
	}
	return of, lines, nil
}

// whole are the lines that were written to their end.
func whole(data []byte) []byte { return data[:bytes.LastIndexByte(data, '\n')+1] }

// Begin begins a file anew.
func Begin(path string, of any) error {
	if path == "" {
		return nil
	}
	line, err := json.Marshal(of)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path, append(line, '\n'), 0o644)
	}
	return err
}

// Add writes a line after the whole ones.
func Add(path string, line any) error {
	if path == "" {
		return nil
	}
	text, err := json.Marshal(line)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	end := int64(len(whole(data)))
	err = file.Truncate(end)
	if err == nil {
		_, err = file.WriteAt(append(text, '\n'), end)
	}
	return errors.Join(err, file.Close())
}
