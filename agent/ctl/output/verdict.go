package output

// Verdict is how something is that was looked at, in the word that programs read.
type Verdict string

// The verdicts of all commands. Who calls them by names of its own has no other words for them.
const (
	Well        Verdict = "well"
	Fits        Verdict = "fits"
	Warning     Verdict = "warning" // worth knowing, and may be meant
	NotWell     Verdict = "not well"
	DoesNotFit  Verdict = "does not fit"
	NotAsked    Verdict = "not asked"  // nobody can say
	NotProven   Verdict = "not proven" // nor here
	NotLookedAt Verdict = "not looked at"
)

// looks are how verdicts look in a text. Each has a sign, for not every reader has colours.
var looks = map[Verdict]struct {
	colour Colour
	sign   string
}{
	Well: {Green, "✓"}, Fits: {Green, "✓"}, Warning: {Yellow, "!"}, NotWell: {Red, "✗"}, DoesNotFit: {Red, "✗"},
	NotAsked: {Yellow, "?"}, NotProven: {Yellow, "?"}, NotLookedAt: {Plain, "?"},
}

// Colour is that of a text about it.
func (v Verdict) Colour() Colour { return looks[v].colour }

// Sign is what stands before a text about it.
func (v Verdict) Sign() string { return looks[v].sign }

// With returns the verdict of something of which another is found too: what is not well stays so.
func (v Verdict) With(found Verdict) Verdict {
	if v == NotWell {
		return v
	}
	return found
}
