package jointoken

import (
	"errors"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

const hash = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"

func TestTheFormIsFixed(t *testing.T) {
	// Written down in full: old agents read what new servers write.
	const line = "EN1." + hash + ".abc123.0123456789abcdef"
	got, err := Parse(" " + line + "\n")
	if err != nil {
		t.Fatal(err)
	}
	if want := (Token{CAHash: hash, ID: "abc123", Secret: "0123456789abcdef"}); got != want {
		t.Errorf("got %+v", got)
	}
	if got.String() != line {
		t.Errorf("prints as %s", got)
	}
	if got.Bearer() != "abc123.0123456789abcdef" {
		t.Errorf("bearer %s", got.Bearer())
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"", "empty"},
		{"abc123.0123456789abcdef", "does not start with EN1"},
		{"EN2." + hash + ".abc123.0123456789abcdef", "does not start with EN1"},
		{"EN1." + hash + ".abc123", "3 parts"},
		{"EN1." + hash + ".abc123.0123456789abcdef.x", "5 parts"},
		{"EN1." + strings.ToUpper(hash) + ".abc123.0123456789abcdef", "second part"},
		{"EN1." + hash[1:] + ".abc123.0123456789abcdef", "second part"},
		{"EN1." + hash + ".ABC123.0123456789abcdef", "third part"},
		{"EN1." + hash + ".abc123.0123456789abcde-", "last part"},
		{"EN1." + hash + ".abc123.0123456789abcde\n\nf", "last part"},
	} {
		_, err := Parse(c.in)
		if !errors.Is(err, ErrMalformed) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want something about %q", c.in, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "0123456789abcde") {
			t.Errorf("%q: the error quotes the secret: %v", c.in, err)
		}
	}
}

func TestParseReadsWhatStringWrites(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := Token{
			CAHash: rapid.StringMatching(`[0-9a-f]{64}`).Draw(t, "hash"),
			ID:     rapid.StringMatching(`[a-z0-9]{6}`).Draw(t, "id"),
			Secret: rapid.StringMatching(`[a-z0-9]{16}`).Draw(t, "secret"),
		}
		if got, err := Parse(want.String()); err != nil || got != want {
			t.Fatalf("got %+v, %v", got, err)
		}
	})
}

func TestParseNeverPanics(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := rapid.String().Draw(t, "s")
		if got, err := Parse(s); err == nil && got.String() != strings.TrimSpace(s) {
			t.Fatalf("%q was read as %s", s, got)
		}
	})
}

func TestHashCAWantsACertificate(t *testing.T) {
	for _, in := range []string{"", "x", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"} {
		if h, err := HashCA([]byte(in)); err == nil {
			t.Errorf("%q has hash %s", in, h)
		}
	}
}
