package trace

import (
	"fmt"
	"strings"

	"github.com/istio-pod-network/controller/internal/columns"
	"github.com/istio-pod-network/controller/plugin/redirect"
)

// lane is a line of a picture from top to bottom: somebody to whom packets come and from whom they go.
type lane int

const (
	appLane lane = iota
	sidecarLane
	rulesLane
	outsideLane
)

// laneNames are the lanes from left to right. The first three are in the pod.
var laneNames = [...]string{"app", "sidecar", "rules", "outside"}

// event is a row of a picture: a packet that goes from one lane to another, or a note at one.
type event struct {
	from, to lane
	text     []string
	note     bool
	lost     bool // nobody gets it
}

// events are what happens on the ways, in order.
func events(ways []Way) (list []event) {
	for i, way := range ways {
		p := way.Packet
		sent := []string{fmt.Sprintf("%d  %s to %s", i+1, protoText(p.Proto), addressText(p.Dest))}
		if way.Sender == Sidecar && p.In == "" && p.Source.Addr() != p.Dest.Addr() && way.Landed == InPod {
			sent = append(sent, "from "+p.Source.Addr().String())
		}
		list = append(list, event{from: way.from(), to: rulesLane, text: sent},
			event{from: rulesLane, to: rulesLane, note: true, text: way.noteText(), lost: way.Landed == Dropped})
		if way.Landed == Dropped {
			continue
		}
		list = append(list, event{from: rulesLane, to: way.to(), text: way.landedText()})
	}
	return list
}

func (way Way) from() lane {
	switch way.Sender {
	case Others:
		return outsideLane
	case Sidecar:
		return sidecarLane
	}
	return appLane
}

func (way Way) to() lane {
	switch {
	case way.Landed == Outside:
		return outsideLane
	case way.Landed.Listener(), way.sidecars:
		return sidecarLane
	}
	return appLane
}

func (way Way) noteText() []string {
	text := "no rule takes it"
	for _, s := range way.Steps {
		if s.Decides {
			text = fmt.Sprintf("%s %d: %s", s.Name(), s.Rule, s.Why)
		}
	}
	if way.Landed == Dropped {
		text += ", dropped"
	}
	return wrap(text, noteWidth)
}

func (way Way) landedText() []string {
	switch way.Landed {
	case Outside:
		return []string{"by " + way.Link}
	case InPod:
		return []string{"port " + fmt.Sprint(way.Dest.Port())}
	}
	text := []string{fmt.Sprintf("%s :%d", way.Landed, way.Dest.Port())}
	if way.Packet.Proto != redirect.UDP {
		text = append(text, "for "+way.Original.String())
	}
	return text
}

// The columns of a picture in a terminal. The pod's frame is around the first three lanes.
const (
	noteWidth  = 34
	frameRight = 83
)

var laneColumns = [...]int{6, 34, 63, 93}

// Picture draws ways for a terminal, one after the other: the app, the sidecar and the rules, which every packet goes
// through, in the pod's frame, and what is outside.
func Picture(ways ...Way) string {
	c := &canvas{}
	c.frame('┌', '─', '┐')
	c.put(2, " pod ")
	c.lanes(false)
	for i, name := range laneNames {
		c.put(laneColumns[i]-len(name)/2, name)
	}
	c.lanes(true)
	for _, e := range events(ways) {
		if e.note {
			c.note(e)
		} else {
			c.arrow(e)
		}
		c.lanes(true)
	}
	c.frame('└', '─', '┘')
	return c.String()
}

// covered is in place of the second column of a wide character.
const covered = '\x00'

// canvas is the lines of a picture; what is put goes to the last one.
type canvas struct{ lines [][]rune }

func (c *canvas) put(at int, text string) {
	line := c.lines[len(c.lines)-1]
	for _, r := range text {
		line[at] = r
		at++
		if columns.OfRune(r) > 1 {
			line[at] = covered
			at++
		}
	}
}

func (c *canvas) add() { c.lines = append(c.lines, []rune(strings.Repeat(" ", Width))) }

func (c *canvas) frame(left, between, right rune) {
	c.add()
	c.put(0, string(left)+strings.Repeat(string(between), frameRight-1)+string(right))
	if len(c.lines) > 1 {
		c.put(laneColumns[outsideLane], "│")
	}
}

// lanes adds a line with the frame's sides, and the lanes if they are to be there.
func (c *canvas) lanes(drawn bool) {
	c.add()
	c.put(0, "│")
	c.put(frameRight, "│")
	if drawn {
		for _, at := range laneColumns {
			c.put(at, "│")
		}
	}
}

// note writes in a box at a lane.
func (c *canvas) note(e event) {
	width := 0
	for _, text := range e.text {
		width = max(width, columns.Of(text))
	}
	left := min(laneColumns[e.from]-width/2-2, frameRight-width-5)
	c.lanes(true)
	c.put(left, "┌"+strings.Repeat("─", width+2)+"┐")
	for _, text := range e.text {
		c.lanes(true)
		c.put(left, "│ "+text+strings.Repeat(" ", width-columns.Of(text))+" │")
	}
	c.lanes(true)
	c.put(left, "└"+strings.Repeat("─", width+2)+"┘")
}

// arrow writes the text above an arrow, and what does not fit above below it.
func (c *canvas) arrow(e event) {
	left, right := laneColumns[min(e.from, e.to)], laneColumns[max(e.from, e.to)]
	c.label(left, right, e.text[0])
	c.lanes(true)
	line := strings.Repeat("─", right-left-1)
	if e.from < e.to {
		c.put(left, "├"+strings.Repeat("─", right-left-2)+"▶")
	} else {
		c.put(left+1, "◀"+line[len("─"):])
		c.put(right, "┤")
	}
	for _, at := range laneColumns {
		if at > left && at < right {
			c.put(at, "┼")
		}
	}
	if left < frameRight && right > frameRight {
		c.put(frameRight, "┼")
	}
	for _, text := range e.text[1:] {
		c.label(left, right, text)
	}
}

// label writes a text between two lanes, next to one where it would be on another.
func (c *canvas) label(left, right int, text string) {
	c.lanes(true)
	at := left + 2
	if left < frameRight && right > frameRight {
		at = max(right-columns.Of(text)-1, left+2)
	}
	c.put(max(min(at, Width-columns.Of(text)), 0), text) // the longest addresses go over the lane
}

func (c *canvas) String() string {
	var out strings.Builder
	for _, line := range c.lines {
		text := strings.ReplaceAll(string(line), string(covered), "")
		out.WriteString(strings.TrimRight(text, " ") + "\n")
	}
	return out.String()
}
