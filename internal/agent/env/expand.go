package env

import (
	"strings"
	"unicode/utf8"
)

// Expand replaces each $(NAME) in s by the variable's value; $$ stands for one $.
// A reference to nothing and a $ that starts no reference stay as they are.
func Expand(s string, vars []Var) string {
	return expand(s, func(name string) (string, bool) {
		for i := len(vars) - 1; i >= 0; i-- {
			if vars[i].Name == name {
				return vars[i].Value, true
			}
		}
		return "", false
	})
}

func expand(s string, lookup func(string) (string, bool)) string {
	var out strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		out.WriteString(before)
		if !found {
			return out.String()
		}
		text, rest := reference(after, lookup)
		out.WriteString(text)
		s = rest
	}
}

// reference reads what follows a $ and returns its text and what is left.
func reference(s string, lookup func(string) (string, bool)) (text, rest string) {
	switch {
	case strings.HasPrefix(s, "$"):
		return "$", s[1:]
	case strings.HasPrefix(s, "("):
		name, rest, closed := strings.Cut(s[1:], ")")
		if !closed {
			return "$(", s[1:]
		}
		if value, ok := lookup(name); ok {
			return value, rest
		}
		return "$(" + name + ")", rest
	}
	_, size := utf8.DecodeRuneInString(s)
	return "$" + s[:size], s[size:]
}
