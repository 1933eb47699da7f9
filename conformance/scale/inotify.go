package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"
)

// instances is the kernel's limit of inotify instances for each user: an agent has two.
const instances = "/proc/sys/fs/inotify/max_user_instances"

// raise lets the user have that many more instances than it may now, until the function that it returns is called.
func raise(more int) (back func(), err error) {
	text, err := os.ReadFile(instances)
	if err != nil {
		return nil, err
	}
	before, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(instances, fmt.Append(nil, before+more), 0); err != nil {
		return nil, fmt.Errorf("raising the limit of inotify instances: %w", err)
	}
	return func() {
		if err := os.WriteFile(instances, text, 0); err != nil {
			fmt.Fprintln(os.Stderr, "scale: putting the limit of inotify instances back:", err)
		}
	}, nil
}
