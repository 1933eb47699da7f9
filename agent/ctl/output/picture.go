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

// Values of Picture.
const (
	NoPicture Picture = ""
	InText    Picture = "text" // for a terminal
	InSVG     Picture = "svg"
)

var pictures = []string{string(InText), string(InSVG)}

// PictureFlag adds the flag for the kind of picture to a command. draws says in the help what the picture shows.
func PictureFlag(c *cobra.Command, picture *string, draws string) {
	f := c.Flags()
	f.StringVar(picture, "picture", string(NoPicture), draws+": as `text` for a terminal, or as svg")
	f.Lookup("picture").NoOptDefVal = string(InText)
	_ = c.RegisterFlagCompletionFunc("picture", cobra.FixedCompletions(pictures, cobra.ShellCompDirectiveNoFileComp))
}

// CheckPicture returns an error if an argument looks like the flag's value after a space. The flag may stand without a
// value, so it takes none after a space. The error has an exit status.
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

// ParsePicture returns the kind of that name. Its error says what is valid.
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

// Fits returns an error, with an exit status, if a picture of that kind cannot show that many pods.
func (p Picture) Fits(pods int) error {
	if p != InSVG || pods <= 1 {
		return nil
	}
	return outcome.Misuse(invalid.Text("--picture", string(p),
		fmt.Sprintf("there are %d pods, and a drawing shows one", pods), "svg with one pod, or text"))
}
