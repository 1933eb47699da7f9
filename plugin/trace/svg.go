package trace

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/internal/columns"
)

// The measures of a drawing, in its own units; letters of its fixed-width font are letterWidth wide.
const (
	drawingWidth = 860
	letterWidth  = 7.3
	lineHeight   = 17
	rowGap       = 14
	lanesTop     = 62
	podRight     = 715
)

var laneAt = [...]int{70, 290, 545, 795}

// style has the colours of both schemes: a page says which it wants, and the drawing has a ground of its own, so that
// it can be read on either.
const style = `
  svg { --ground: #ffffff; --ink: #1f2328; --faint: #8c959f; --frame: #d0d7de; --way: #0969da; --lost: #cf222e;
    --pod: #f6f8fa; --note: #ddf4ff }
  @media (prefers-color-scheme: dark) { svg { --ground: #0d1117; --ink: #e6edf3; --faint: #7d8590; --frame: #30363d;
    --way: #4493f8; --lost: #f85149; --pod: #151b23; --note: #121d2f } }
  text { font: 12px ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; fill: var(--ink) }
  .name { font-weight: bold; text-anchor: middle }
  .ground { fill: var(--ground) } .pod { fill: var(--pod); stroke: var(--frame) }
  .lane { stroke: var(--faint); stroke-dasharray: 3 4 }
  .way { stroke: var(--way); stroke-width: 1.6 } .head { fill: var(--way) }
  .note { fill: var(--note); stroke: var(--way) } .lost { stroke: var(--lost) }
`

// SVG draws what Picture draws as a document of its own, which is readable on a dark and on a light page. The title is
// for who cannot see it.
func SVG(title string, ways ...Way) string {
	d := &drawing{y: lanesTop + rowGap}
	for _, e := range events(ways) {
		if e.note {
			d.note(e)
		} else {
			d.arrow(e)
		}
	}
	return d.document(title)
}

// drawing is a document from top to bottom.
type drawing struct {
	body strings.Builder
	y    int // where the next thing is drawn
}

func (d *drawing) line(format string, args ...any) { fmt.Fprintf(&d.body, "  "+format+"\n", args...) }

// note writes in a box at a lane.
func (d *drawing) note(e event) {
	width := 0
	for _, text := range e.text {
		width = max(width, columns.Of(text))
	}
	boxWidth, height := int(float64(width)*letterWidth)+20, len(e.text)*lineHeight+10
	left := min(laneAt[e.from]-boxWidth/2, podRight-boxWidth-8)
	class := "note"
	if e.lost {
		class = "note lost"
	}
	d.line(`<rect class="%s" x="%d" y="%d" width="%d" height="%d" rx="4"/>`, class, left, d.y, boxWidth, height)
	for i, text := range e.text {
		d.text(left+10, d.y+lineHeight*(i+1), text)
	}
	d.y += height + rowGap
}

// arrow writes its text above it.
func (d *drawing) arrow(e event) {
	left, right := laneAt[min(e.from, e.to)], laneAt[max(e.from, e.to)]
	at, anchor := left+10, "start"
	if max(e.from, e.to) == outsideLane {
		at, anchor = right-10, "end"
	}
	for _, text := range e.text {
		d.y += lineHeight
		d.line(`<text x="%d" y="%d" text-anchor="%s">%s</text>`, at, d.y-4, anchor, escaped.Replace(text))
	}
	d.y += 4
	from, to, back := laneAt[e.from], laneAt[e.to], -9
	if from > to {
		back = 9
	}
	d.line(`<line class="way" x1="%d" y1="%d" x2="%d" y2="%d"/>`, from, d.y, to+back, d.y)
	d.line(`<path class="head" d="M%d %d l%d -5 v10 z"/>`, to, d.y, back)
	d.y += rowGap
}

func (d *drawing) text(x, y int, text string) {
	d.line(`<text x="%d" y="%d">%s</text>`, x, y, escaped.Replace(text))
}

var escaped = strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;")

// document puts the lanes under what is drawn.
func (d *drawing) document(title string) string {
	var out strings.Builder
	height := d.y + 26
	fmt.Fprintf(&out, "<svg xmlns=%q viewBox=\"0 0 %d %d\" role=\"img\">\n", "http://www.w3.org/2000/svg", drawingWidth,
		height)
	fmt.Fprintf(&out, "  <title>%s</title>\n  <style>%s  </style>\n", escaped.Replace(title), style)
	fmt.Fprintf(&out, "  <rect class=\"ground\" width=\"%d\" height=\"%d\"/>\n", drawingWidth, height)
	fmt.Fprintf(&out, "  <rect class=\"pod\" x=\"12\" y=\"12\" width=\"%d\" height=\"%d\" rx=\"8\"/>\n", podRight-12,
		height-24)
	out.WriteString("  <text x=\"24\" y=\"30\">pod</text>\n")
	for i, name := range laneNames {
		fmt.Fprintf(&out, "  <text class=\"name\" x=\"%d\" y=\"%d\">%s</text>\n", laneAt[i], lanesTop-14, name)
		fmt.Fprintf(&out, "  <line class=\"lane\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/>\n", laneAt[i], lanesTop-6,
			laneAt[i], height-22)
	}
	return out.String() + d.body.String() + "</svg>\n"
}
