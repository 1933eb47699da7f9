package verify

import (
	"encoding/xml"
	"os"
)

// The format that tools for JUnit's XML read. Source: https://github.com/testmoapp/junitxml
type (
	suites struct {
		XMLName xml.Name `xml:"testsuites"`
		Name    string   `xml:"name,attr"`
		Suites  []suite  `xml:"testsuite"`
	}
	suite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Skipped  int         `xml:"skipped,attr"`
		Cases    []suiteCase `xml:"testcase"`
	}
	suiteCase struct {
		Class   string  `xml:"classname,attr"`
		Name    string  `xml:"name,attr"`
		Failure *reason `xml:"failure"`
		Error   *reason `xml:"error"`
		Skipped *reason `xml:"skipped"`
	}
	reason struct {
		Message string `xml:"message,attr"`
	}
)

// add adds a case with its result.
func (s *suite) add(name string, verdict Verdict, why string) {
	c := suiteCase{Class: s.Name, Name: name}
	s.Tests++
	switch verdict {
	case NotWell:
		s.Failures++
		c.Failure = &reason{why}
	case NotProven:
		s.Skipped++
		c.Skipped = &reason{why}
	}
	s.Cases = append(s.Cases, c)
}

// fail adds a case without a result as an error.
func (s *suite) fail(name, why string) {
	s.Tests++
	s.Errors++
	s.Cases = append(s.Cases, suiteCase{Class: s.Name, Name: name, Error: &reason{why}})
}

// junit returns a suite for each node, with a case for the node and one for each of its flows. A node that is not
// proven is an error, and so is a run that failed as a whole. An attempt that proves nothing is skipped.
func (v Verification) junit() ([]byte, error) {
	all := suites{Name: "istio-pod-networkctl verify"}
	if v.Error != "" {
		s := suite{Name: "verify"}
		s.fail("run", v.Error)
		all.Suites = append(all.Suites, s)
	}
	for _, n := range v.Items {
		s, why := suite{Name: n.Name}, ""
		for _, f := range n.Findings {
			if why != "" {
				why += "\n"
			}
			why += f.What + "\n-> " + f.Next
		}
		if n.Verdict == NotProven {
			s.fail("node", why)
		} else {
			s.add("node", n.Verdict, why)
		}
		for _, f := range n.Flows {
			s.add(f.Flow+" "+f.Family, f.Verdict, f.Why)
		}
		all.Suites = append(all.Suites, s)
	}
	data, err := xml.MarshalIndent(all, "", "  ")
	return append([]byte(xml.Header), append(data, '\n')...), err
}

// writeJUnit writes the report to a file.
func (v Verification) writeJUnit(path string) error {
	data, err := v.junit()
	if err != nil {
		return err
	}
	return os.WriteFile(path, data, 0o644)
}
