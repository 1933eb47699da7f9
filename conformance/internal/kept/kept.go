// Package kept stores the results of a long measurement, so that an interrupted run can continue. The file has JSON
// lines: the first says what is measured, and each other line is one result. With an empty path nothing is stored.
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

// ErrNothing is the error for a file that does not exist, or has no complete line.
var ErrNothing = errors.New("nothing was measured yet")

// Read returns the first line of a file, and its other lines. It ignores an incomplete last line.
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

// whole returns the complete lines.
func whole(data []byte) []byte { return data[:bytes.LastIndexByte(data, '\n')+1] }

// Begin creates a file with its first line, or replaces it. It creates missing directories.
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

// Add appends a line. It first removes an incomplete last line.
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
