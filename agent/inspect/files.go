package inspect

import "time"

// Files is what lies in the directories of a node that the plugin and the networks have: who reads it sees what the
// runtime sees. Credentials are blanked.
type Files struct {
	Directories []Directory `json:"directories"`
}

// Roles of directories.
const (
	RoleConfigurations = "configurations" // of networks, as the runtime, or Multus, reads them
	RolePlugins        = "plugins"
	RoleState          = "state" // the plugin's and the agent's own, with the records
)

// Directory is one of them, as the agent's container has it.
type Directory struct {
	Path    string `json:"path"`
	Role    string `json:"role"`
	Files   []File `json:"files"`             // sorted by name
	LeftOut int    `json:"leftOut,omitempty"` // how many more there are
	Problem string `json:"problem,omitempty"` // why it could not be read
}

// File is what is in a directory, or in one below it.
type File struct {
	Name     string    `json:"name"` // from its directory on
	Mode     string    `json:"mode"`
	Size     int64     `json:"size"`
	Modified time.Time `json:"modified"`
	Target   string    `json:"target,omitempty"` // of a link
	// Text is that of a configuration or a record.
	Text string `json:"text,omitempty"`
	// Problem is why there is no text, where there should be one.
	Problem string `json:"problem,omitempty"`
}
