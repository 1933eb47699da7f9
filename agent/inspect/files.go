package inspect

import "time"

// Files lists the files of the node in the directories of network configurations, plugins and records, as the agent's
// container sees them. Credentials are blanked.
type Files struct {
	Directories []Directory `json:"directories"`
}

// Values of Directory.Role.
const (
	RoleConfigurations = "configurations" // network configurations that the runtime or Multus reads
	RolePlugins        = "plugins"
	RoleState          = "state" // the records and the state of plugin and agent
)

// Directory is one directory and its files.
type Directory struct {
	Path    string `json:"path"`
	Role    string `json:"role"`
	Files   []File `json:"files"`             // sorted by name
	LeftOut int    `json:"leftOut,omitempty"` // number of files that are not listed
	Problem string `json:"problem,omitempty"` // why the directory could not be read
}

// File is a file in a directory, or below it.
type File struct {
	Name     string    `json:"name"` // relative to the directory
	Mode     string    `json:"mode"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Target   string    `json:"target,omitempty"` // of a symbolic link
	// Text is the content of a configuration or a record.
	Text string `json:"text,omitempty"`
	// Problem is why Text is missing, if the file should have one.
	Problem string `json:"problem,omitempty"`
}
