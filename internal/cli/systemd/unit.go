package systemd

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/coreos/go-systemd/v22/unit"
)

// Service is one role of everynode as systemd runs it.
type Service struct {
	// Role is the command: server or agent.
	Role string
	// Program is the absolute path of the everynode binary.
	Program string
	// Args are the flags of the role.
	Args []string
}

// Name is the name of a role's unit.
func Name(role string) string { return "everynode-" + role + ".service" }

// descriptions of the roles, as `systemctl status` shows them.
var descriptions = map[string]string{
	"server": "everynode server: API server, controllers and scheduler",
	"agent":  "everynode agent: the pods of this machine",
}

// Unit is the text of the unit file.
//
// A stop or an upgrade of the service must not stop a container, hence KillMode=process; the pods'
// cgroups are the agent's to manage, hence Delegate. Both roles retry by themselves whatever can
// pass, so systemd starts them again for ever and puts no limit on the time to become ready: an
// agent waits for its server.
func (s Service) Unit() ([]byte, error) {
	description, ok := descriptions[s.Role]
	if !ok {
		return nil, fmt.Errorf("no such role: %q", s.Role)
	}
	words := append([]string{s.Program, s.Role}, s.Args...)
	for i, word := range words {
		quoted, err := quote(word)
		if err != nil {
			return nil, fmt.Errorf("argument %q: %w", word, err)
		}
		words[i] = quoted
	}
	after := "network-online.target"
	if s.Role == "agent" {
		after += " containerd.service crio.service " + Name("server")
	}
	return io.ReadAll(unit.Serialize([]*unit.UnitOption{
		unit.NewUnitOption("Unit", "Description", description),
		unit.NewUnitOption("Unit", "Documentation", "https://github.com/everynode/everynode"),
		unit.NewUnitOption("Unit", "Wants", "network-online.target"),
		unit.NewUnitOption("Unit", "After", after),
		unit.NewUnitOption("Unit", "StartLimitIntervalSec", "0"),
		unit.NewUnitOption("Service", "Type", "notify"),
		unit.NewUnitOption("Service", "ExecStart", strings.Join(words, " ")),
		unit.NewUnitOption("Service", "Restart", "always"),
		unit.NewUnitOption("Service", "RestartSec", "2"),
		unit.NewUnitOption("Service", "TimeoutStartSec", "infinity"),
		unit.NewUnitOption("Service", "TimeoutStopSec", "20"),
		unit.NewUnitOption("Service", "KillMode", "process"),
		unit.NewUnitOption("Service", "Delegate", "yes"),
		unit.NewUnitOption("Service", "LimitNOFILE", "1048576"),
		unit.NewUnitOption("Service", "TasksMax", "infinity"),
		unit.NewUnitOption("Service", "OOMScoreAdjust", "-999"),
		unit.NewUnitOption("Install", "WantedBy", "multi-user.target"),
	}))
}

// Parse reads back what Unit wrote.
func Parse(text []byte) (Service, error) {
	options, err := unit.DeserializeOptions(strings.NewReader(string(text)))
	if err != nil {
		return Service{}, err
	}
	for _, o := range options {
		if o.Section != "Service" || o.Name != "ExecStart" {
			continue
		}
		words, err := split(o.Value)
		if err != nil {
			return Service{}, fmt.Errorf("ExecStart=%s: %w", o.Value, err)
		}
		if len(words) < 2 {
			return Service{}, fmt.Errorf("ExecStart=%s: names no role", o.Value)
		}
		return Service{Program: words[0], Role: words[1], Args: words[2:]}, nil
	}
	return Service{}, errors.New("no ExecStart in section Service")
}

// Flag is the value of --NAME=VALUE among the arguments, or the fallback.
func (s Service) Flag(name, fallback string) string {
	for _, arg := range s.Args {
		if value, ok := strings.CutPrefix(arg, "--"+name+"="); ok {
			return value
		}
	}
	return fallback
}

// plain are the bytes that mean themselves in ExecStart, unquoted.
func plain(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("-_./:=,@+", r)
}

// quote writes one argument of ExecStart: systemd expands % and $ in it, and takes quotes and
// backslashes as a shell nearly does (systemd.service(5), "Command lines").
func quote(word string) (string, error) {
	for _, r := range word {
		if r < ' ' || r == 0x7f {
			return "", errors.New("a control character cannot be written into a unit")
		}
	}
	if word != "" && !strings.ContainsFunc(word, func(r rune) bool { return !plain(r) }) {
		return word, nil
	}
	escaped := strings.NewReplacer(`\`, `\\`, `"`, `\"`, `%`, `%%`, `$`, `$$`).Replace(word)
	return `"` + escaped + `"`, nil
}

// split is the inverse of quote, for a line of quoted words.
func split(line string) ([]string, error) {
	var words []string
	for line = strings.TrimLeft(line, " "); line != ""; line = strings.TrimLeft(line, " ") {
		word, rest, err := first(line)
		if err != nil {
			return nil, err
		}
		words, line = append(words, word), rest
	}
	return words, nil
}

var unescape = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `%%`, `%`, `$$`, `$`)

func first(line string) (word, rest string, err error) {
	if line[0] != '"' {
		word, rest, _ = strings.Cut(line, " ")
		return unescape.Replace(word), rest, nil
	}
	for i := 1; i < len(line); i++ {
		switch line[i] {
		case '\\':
			i++
		case '"':
			return unescape.Replace(line[1:i]), line[i+1:], nil
		}
	}
	return "", "", errors.New("a quote is not closed")
}
