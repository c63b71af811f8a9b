package systemd

import (
	"reflect"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestUnit(t *testing.T) {
	text, err := Service{Role: "agent", Program: "/usr/local/bin/everynode", Args: []string{"--server=https://192.0.2.10:6443", "--node-labels=a=b,c=100%"}}.Unit()
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`ExecStart=/usr/local/bin/everynode agent --server=https://192.0.2.10:6443 "--node-labels=a=b,c=100%%"`,
		"KillMode=process", "Delegate=yes", "Restart=always", "Type=notify", "WantedBy=multi-user.target",
	} {
		if !strings.Contains("\n"+string(text), "\n"+line+"\n") {
			t.Errorf("no line %s in\n%s", line, text)
		}
	}
}

func TestUnitRefuses(t *testing.T) {
	for _, s := range []Service{{Role: "cook", Program: "/x"}, {Role: "agent", Program: "/x", Args: []string{"--a=b\nExecStartPre=/bad"}}} {
		if text, err := s.Unit(); err == nil {
			t.Errorf("%+v makes a unit:\n%s", s, text)
		}
	}
}

// What is written is read back as it was, whatever the arguments.
func TestParseReadsWhatUnitWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Service{
			Role: "server", Program: "/" + rapid.StringMatching(`[a-zA-Z0-9 $%"'\\/]{1,12}`).Draw(t, "program"),
			Args: rapid.SliceOfN(rapid.StringMatching(`[ -~äß]{0,12}`), 1, 4).Draw(t, "args"),
		}
		text, err := want.Unit()
		if err != nil {
			t.Fatal(err)
		}
		got, err := Parse(text)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%+v became %+v, %v in\n%s", want, got, err, text)
		}
	})
}

func TestFlag(t *testing.T) {
	s := Service{Args: []string{"--data-dir=/srv/x", "--v=1"}}
	if got := s.Flag("data-dir", "/d"); got != "/srv/x" {
		t.Errorf("data-dir is %q", got)
	}
	if got := s.Flag("run-dir", "/d"); got != "/d" {
		t.Errorf("run-dir is %q", got)
	}
}
