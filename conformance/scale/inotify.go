package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// instances is the kernel's limit of inotify instances for each user. An agent has two.
const instances = "/proc/sys/fs/inotify/max_user_instances"

// raise increases the user's limit by that many, until the returned function is called. That subtracts the same number,
// so that another run keeps its own increase.
func raise(path string, more int) (back func(), err error) {
	if err := change(path, more); err != nil {
		return nil, fmt.Errorf("raising the limit of inotify instances: %w", err)
	}
	return func() {
		if err := change(path, -more); err != nil {
			fmt.Fprintln(os.Stderr, "scale: putting the limit of inotify instances back:", err)
		}
	}, nil
}

// change adds to the number in a file.
func change(path string, more int) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return err
	}
	return os.WriteFile(path, fmt.Append(nil, max(now+more, 1)), 0)
}
