package output

// Verdict is the result about something, in the word that programs read.
type Verdict string

// Verdicts of all commands. Packages may have other names for them, but the same words.
const (
	Well        Verdict = "well"
	Fits        Verdict = "fits"
	Warning     Verdict = "warning" // worth knowing, but may be intended
	NotWell     Verdict = "not well"
	DoesNotFit  Verdict = "does not fit"
	NotAsked    Verdict = "not asked"  // it could not be asked
	NotProven   Verdict = "not proven" // it could not be proven
	NotLookedAt Verdict = "not looked at"
)

// looks are the colours and signs of verdicts in text. Each has a sign, because some readers have no colours.
var looks = map[Verdict]struct {
	colour Colour
	sign   string
}{
	Well: {Green, "✓"}, Fits: {Green, "✓"}, Warning: {Yellow, "!"}, NotWell: {Red, "✗"}, DoesNotFit: {Red, "✗"},
	NotAsked: {Yellow, "?"}, NotProven: {Yellow, "?"}, NotLookedAt: {Plain, "?"},
}

// Colour returns the colour of a text about the verdict.
func (v Verdict) Colour() Colour { return looks[v].colour }

// Sign returns the sign before a text about the verdict.
func (v Verdict) Sign() string { return looks[v].sign }

// With returns the verdict after another finding: NotWell stays, otherwise found counts.
func (v Verdict) With(found Verdict) Verdict {
	if v == NotWell {
		return v
	}
	return found
}
