package docs

import (
	"encoding/xml"
	"errors"
	"fmt"
	"html"
	"io"
	"maps"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/istio-pod-network/controller/internal/columns"
	"github.com/istio-pod-network/controller/internal/golden"
	"sigs.k8s.io/yaml"
)

// diagram is what a file in pictures/sources says: frames around boxes with texts, and arrows between them. Positions
// and sizes are in the drawing's own units, from its top left; a letter is letterWidth of them wide.
type diagram struct {
	Title  string   `json:"title"` // for who cannot see it
	Width  int      `json:"width"`
	Height int      `json:"height"`
	Boxes  []box    `json:"boxes"`
	Arrows []string `json:"arrows"` // "FROM SIDE -> TO SIDE: TEXT", with the IDs of boxes
}

// box is a rectangle. What encloses others comes before them.
type box struct {
	ID   string   `json:"id"`
	Kind string   `json:"kind"` // a class of style
	At   [2]int   `json:"at"`
	Size [2]int   `json:"size"`
	Name string   `json:"name"` // its first line
	Text []string `json:"text"` // what stands below it
}

const (
	letterWidth = 7.1 // of the widest fonts that a page may have for it, on the average
	lineHeight  = 17
)

// boxKinds are those of style.
var boxKinds = []string{"frame", "list", "box", "ours", "file"}

// style has the colours of both schemes, as the drawings of packets' ways have (plugin/trace): a page says which it
// wants, and the drawing has a ground of its own.
const style = `
  svg { --ground: #ffffff; --ink: #1f2328; --edge: #d0d7de; --way: #0969da; --frame: #f6f8fa; --note: #ddf4ff }
  @media (prefers-color-scheme: dark) { svg { --ground: #0d1117; --ink: #e6edf3; --edge: #30363d; --way: #4493f8;
    --frame: #151b23; --note: #121d2f } }
  text { font: 13px ui-sans-serif, system-ui, sans-serif; fill: var(--ink); text-anchor: middle }
  .name { font-weight: bold } .left { text-anchor: start } .right { text-anchor: end }
  .ground { fill: var(--ground) } .frame { fill: var(--frame); stroke: var(--edge) }
  .box { fill: var(--ground); stroke: var(--edge) } .ours { fill: var(--note); stroke: var(--way) }
  .file, .list { fill: var(--ground); stroke: var(--ink); stroke-dasharray: 5 3 }
  .way { stroke: var(--way); stroke-width: 1.6; fill: none } .head { fill: var(--way) }
`

// The pictures of the documentation that a walk through the rules does not draw: go test ./docs -update.
func TestDiagrams(t *testing.T) {
	sources, err := filepath.Glob("pictures/sources/*.yaml")
	if err != nil || len(sources) == 0 {
		t.Fatalf("%d sources of pictures, %v", len(sources), err)
	}
	for _, path := range sources {
		var d diagram
		if err := yaml.UnmarshalStrict([]byte(read(t, path)), &d); err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		svg, problems := d.svg()
		for _, problem := range append(problems, flaws(svg)...) {
			t.Errorf("%s: %s", path, problem)
		}
		golden.Compare(t, filepath.Join("pictures", strings.TrimSuffix(filepath.Base(path), ".yaml")+".svg"), svg)
	}
}

// What is wrong with a source is found, so that nobody has to look at every picture after every change.
func TestDiagramsAreChecked(t *testing.T) {
	small := box{ID: "a", Kind: "box", At: [2]int{10, 10}, Size: [2]int{60, 30}, Name: "a"}
	with := func(change func(*box)) box { b := small; change(&b); return b }
	for want, d := range map[string]diagram{
		"":                {Boxes: []box{small}},
		"no title":        {Title: " "},
		"wider than its":  {Boxes: []box{with(func(b *box) { b.Name = "much too long a name" })}},
		"outside of the":  {Boxes: []box{with(func(b *box) { b.At[0] = 180 })}},
		"higher than its": {Boxes: []box{with(func(b *box) { b.Text = []string{"1", "2"} })}},
		"kind \"x\"":      {Boxes: []box{with(func(b *box) { b.Kind = "x" })}},
		"want FROM SIDE":  {Boxes: []box{small}, Arrows: []string{"a -> b"}},
		"no box \"b\"":    {Boxes: []box{small}, Arrows: []string{"a left -> b right: x"}},
		"no side \"up\"":  {Boxes: []box{small}, Arrows: []string{"a up -> a left: x"}},
	} {
		d.Width, d.Height = 200, 100
		if d.Title == "" {
			d.Title = "a picture"
		}
		_, problems := d.svg()
		if all := strings.Join(problems, "; "); want == "" && all != "" || !strings.Contains(all, want) {
			t.Errorf("want %q, got %q", want, all)
		}
	}
}

// flaws are what a reader could not read.
func flaws(svg string) (all []string) {
	for decoder := xml.NewDecoder(strings.NewReader(svg)); ; {
		if _, err := decoder.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return []string{err.Error()}
		}
	}
	light, dark, _ := strings.Cut(svg, "prefers-color-scheme: dark")
	for _, name := range regexp.MustCompile(`var\((--\w+)\)`).FindAllStringSubmatch(svg, -1) {
		if !strings.Contains(light, name[1]+":") || !strings.Contains(dark, name[1]+":") {
			all = append(all, "no colour "+name[1]+" for both schemes")
		}
	}
	return all
}

func (d diagram) svg() (text string, problems []string) {
	var out strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&out, "  "+format+"\n", args...) }
	if strings.TrimSpace(d.Title) == "" {
		problems = append(problems, "no title")
	}
	title := html.EscapeString(d.Title)
	fmt.Fprintf(&out, "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 %d %d\" role=\"img\">\n", d.Width, d.Height)
	line("<title>%s</title>", title)
	line("<style>%s  </style>", style)
	line(`<defs><marker id="h" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">` +
		`<path class="head" d="M0 0 8 4 0 8z"/></marker></defs>`)
	line(`<rect class="ground" width="%d" height="%d"/>`, d.Width, d.Height)
	boxes := map[string]box{}
	for _, b := range d.Boxes {
		boxes[b.ID] = b
		problems = append(problems, b.flaws(d)...)
		b.draw(line)
	}
	for _, a := range d.Arrows {
		if err := arrow(a, boxes, line); err != nil {
			problems = append(problems, err.Error())
		}
	}
	out.WriteString("</svg>\n")
	return out.String(), problems
}

func (b box) flaws(d diagram) (all []string) {
	problem := func(format string, args ...any) {
		all = append(all, fmt.Sprintf("box %q: ", b.ID)+fmt.Sprintf(format, args...))
	}
	if !slices.Contains(boxKinds, b.Kind) {
		problem("kind %q, want one of %q", b.Kind, boxKinds)
	}
	if b.At[0] < 0 || b.At[1] < 0 || b.At[0]+b.Size[0] > d.Width || b.At[1]+b.Size[1] > d.Height {
		problem("it is outside of the picture")
	}
	for _, text := range append([]string{b.Name}, b.Text...) {
		if width := letterWidth*float64(columns.Of(text)) + 8; width > float64(b.Size[0]) {
			problem("%q is wider than its %d: %.0f", text, b.Size[0], width)
		}
	}
	if height := lineHeight*(len(b.Text)+1) + 6; height > b.Size[1] {
		problem("its text is higher than its %d: %d", b.Size[1], height)
	}
	return all
}

// draw writes the name of what encloses others into its corner, and the text of all else into the middle.
func (b box) draw(line func(string, ...any)) {
	line(`<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="6"/>`, b.Kind, b.At[0], b.At[1], b.Size[0], b.Size[1])
	class := "name"
	x, y := b.At[0]+b.Size[0]/2, b.At[1]+b.Size[1]/2-lineHeight*len(b.Text)/2+5
	if b.Kind == "frame" || b.Kind == "list" {
		class, x, y = "left name", b.At[0]+12, b.At[1]+22
	}
	for i, text := range append([]string{b.Name}, b.Text...) {
		if i == 1 {
			class = strings.TrimSpace(strings.ReplaceAll(class, "name", ""))
		}
		attribute := ""
		if class != "" {
			attribute = fmt.Sprintf(" class=%q", class)
		}
		line(`<text%s x="%d" y="%d">%s</text>`, attribute, x, y+lineHeight*i, html.EscapeString(text))
	}
}

// sides are where an arrow begins or ends, as parts of a box's width and height. A third of a side is named by where it
// is: "top left" is that of the top.
var sides = map[string][2]float64{
	"left": {0, 0.5}, "right": {1, 0.5}, "top": {0.5, 0}, "bottom": {0.5, 1},
	"left-top": {0, 0.25}, "left-bottom": {0, 0.75}, "right-top": {1, 0.25}, "right-bottom": {1, 0.75},
	"top-left": {0.25, 0}, "top-right": {0.75, 0}, "bottom-left": {0.25, 1}, "bottom-right": {0.75, 1},
}

var arrowForm = regexp.MustCompile(`^(\S+) (\S+) -> (\S+) (\S+): (.*)$`)

// arrow draws one with its text at the middle of its longest part: right of one that is upright, above all others.
func arrow(source string, boxes map[string]box, line func(string, ...any)) error {
	part := arrowForm.FindStringSubmatch(source)
	if part == nil {
		return fmt.Errorf("arrow %q: want FROM SIDE -> TO SIDE: TEXT", source)
	}
	var x, y [2]int
	var lies [2]bool // the part at that end
	for i, end := range [][]string{part[1:3], part[3:5]} {
		b, known := boxes[end[0]]
		if !known {
			return fmt.Errorf("arrow %q: no box %q", source, end[0])
		}
		side, known := sides[end[1]]
		if !known {
			return fmt.Errorf("arrow %q: no side %q, want one of %q", source, end[1], slices.Sorted(maps.Keys(sides)))
		}
		x[i], y[i] = b.At[0]+int(side[0]*float64(b.Size[0])), b.At[1]+int(side[1]*float64(b.Size[1]))
		lies[i] = strings.HasPrefix(end[1], "left") || strings.HasPrefix(end[1], "right")
	}
	for i := range 2 { // what is nearly straight is
		if ends := [][2]int{x, y}[i]; ends[0]-ends[1] >= -8 && ends[0]-ends[1] <= 8 {
			*[]*int{&x[1], &y[1]}[i] = ends[0]
		}
	}
	middle := [2]int{(x[0] + x[1]) / 2, (y[0] + y[1]) / 2}
	way, textX, textY, class := "", middle[0], y[0]-7, ""
	switch {
	case x[0] == x[1]:
		way, textX, textY, class = fmt.Sprintf("V%d", y[1]), x[0]+8, middle[1]+4, ` class="left"`
	case y[0] == y[1]:
		way = fmt.Sprintf("H%d", x[1])
	case lies[0] && lies[1]:
		way = fmt.Sprintf("H%dV%dH%d", middle[0], y[1], x[1])
		textX, textY = (middle[0]+x[1])/2, y[1]-7
	case lies[0]:
		way = fmt.Sprintf("H%dV%d", x[1], y[1])
	case lies[1]:
		way, textY = fmt.Sprintf("V%dH%d", y[1], x[1]), y[1]-7
	default:
		way, textY = fmt.Sprintf("V%dH%dV%d", middle[1], x[1], y[1]), middle[1]-7
	}
	line(`<path class="way" marker-end="url(#h)" d="M%d %d%s"/>`, x[0], y[0], way)
	if text := html.EscapeString(part[5]); text != "" {
		line(`<text%s x="%d" y="%d">%s</text>`, class, textX, textY, text)
	}
	return nil
}
