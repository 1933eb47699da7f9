package output

import (
	"fmt"
	"slices"
	"strings"

	"github.com/istio-pod-network/controller/agent/ctl/outcome"
	"github.com/istio-pod-network/controller/internal/invalid"
	"github.com/spf13/cobra"
)

// Picture is a kind of picture.
type Picture string

// The kinds of picture.
const (
	NoPicture Picture = ""
	InText    Picture = "text" // for a terminal
	InSVG     Picture = "svg"
)

var pictures = []string{string(InText), string(InSVG)}

// PictureFlag gives a command the flag that says of which kind a picture is. What it draws is what the help says.
func PictureFlag(c *cobra.Command, picture *string, draws string) {
	f := c.Flags()
	f.StringVar(picture, "picture", string(NoPicture), draws+": as `text` for a terminal, or as svg")
	f.Lookup("picture").NoOptDefVal = string(InText)
	_ = c.RegisterFlagCompletionFunc("picture", cobra.FixedCompletions(pictures, cobra.ShellCompDirectiveNoFileComp))
}

// CheckPicture looks whether a pod is the flag's value behind a blank: a flag that can stand alone takes none.
// An error has its exit status.
func CheckPicture(picture string, pods []string) error {
	if Picture(picture) != InText {
		return nil
	}
	for _, pod := range pods {
		if slices.Contains(pictures, pod) {
			return outcome.Misuse(invalid.Text("--picture", pod, "the kind of picture stands behind a =",
				"--picture="+pod+", or NAMESPACE/"+pod+" for a pod of that name"))
		}
	}
	return nil
}

// ParsePicture reads the flag's value.
func ParsePicture(text string, format Format) (Picture, error) {
	switch {
	case text == string(NoPicture):
	case !slices.Contains(pictures, text):
		return NoPicture, invalid.Text("--picture", text, "unknown kind of picture", strings.Join(pictures, ", "))
	case format == JSON || format == YAML:
		return NoPicture, invalid.Text("--output", string(format), "a picture has no such format",
			"table or wide, with --picture")
	}
	return Picture(text), nil
}

// Fits is the error where a picture of that kind cannot show so many pods, with its exit status.
func (p Picture) Fits(pods int) error {
	if p != InSVG || pods <= 1 {
		return nil
	}
	return outcome.Misuse(invalid.Text("--picture", string(p),
		fmt.Sprintf("there are %d pods, and a drawing shows one", pods), "svg with one pod, or text"))
}
