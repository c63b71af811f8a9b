//go:build conformance

package conformance

import (
	"encoding/xml"
	"fmt"
	"os"
	"slices"
	"strings"
)

// spec is one entry of a JUnit report: a spec, or a step before or after all of them.
type spec struct {
	Name    string  `xml:"name,attr"`
	Status  string  `xml:"status,attr"`
	Seconds float64 `xml:"time,attr"`
	Failure failure `xml:"failure"`
	Error   failure `xml:"error"`
}

type failure struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

func (s spec) failed() bool { return s.Status != "passed" }

func (s spec) String() string {
	verdict := "ok  "
	if s.failed() {
		verdict = "FAIL"
	}
	return fmt.Sprintf("%s %6.1fs %s", verdict, s.Seconds, strings.TrimPrefix(s.Name, "[It] "))
}

// why is what a failed spec says.
func (s spec) why() string {
	for _, f := range []failure{s.Failure, s.Error} {
		if f != (failure{}) {
			return f.Message + "\n" + strings.TrimSpace(f.Text)
		}
	}
	return s.Status
}

// readReport returns the specs that ran, and the steps around them that failed.
func readReport(path string) ([]spec, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var report struct {
		Specs []spec `xml:"testsuite>testcase"`
	}
	if err := xml.Unmarshal(text, &report); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return slices.DeleteFunc(report.Specs, func(s spec) bool {
		return s.Status == "skipped" || s.Status == "pending" || !s.failed() && !strings.HasPrefix(s.Name, "[It] ")
	}), nil
}
