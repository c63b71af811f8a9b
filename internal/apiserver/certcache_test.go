package apiserver

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
)

func TestRememberCertificates(t *testing.T) {
	asked := 0
	next := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		asked++
		switch r.Header.Get("Answer") {
		case "certificate":
			return &authenticator.Response{User: &user.DefaultInfo{Name: "c", Extra: map[string][]string{user.CredentialIDKey: {"X509SHA256=00"}}}}, true, nil
		case "token":
			return &authenticator.Response{User: &user.DefaultInfo{Name: "t", Extra: map[string][]string{user.CredentialIDKey: {"JTI=00"}}}}, true, nil
		case "error":
			return nil, false, errors.New("bad certificate")
		}
		return nil, false, nil
	})
	a := rememberCertificates(next)
	valid := func() *x509.Certificate { return &x509.Certificate{NotAfter: time.Now().Add(time.Hour)} }
	request := func(c *x509.Certificate, answer string) (string, int) {
		t.Helper()
		r := &http.Request{Header: http.Header{"Answer": {answer}}}
		if c != nil {
			r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{c}}
		}
		asked = 0
		response, ok, err := a.AuthenticateRequest(r)
		if (answer == "error") != (err != nil) || ok != (response != nil) {
			t.Fatalf("%s: %v, %v, %v", answer, response, ok, err)
		}
		if response == nil {
			return "", asked
		}
		return response.User.GetName(), asked
	}
	for name, c := range map[string]struct {
		certificate *x509.Certificate
		answer      string
		again       int // how often the next one is asked the second time
	}{
		"good certificate":           {valid(), "certificate", 0},
		"expired meanwhile":          {&x509.Certificate{NotAfter: time.Now().Add(-time.Second)}, "certificate", 1},
		"token beside a certificate": {valid(), "token", 1},
		"bad certificate":            {valid(), "error", 1},
		"not known":                  {valid(), "", 1},
		"no certificate":             {nil, "token", 1},
	} {
		t.Run(name, func(t *testing.T) {
			first, n := request(c.certificate, c.answer)
			if n != 1 {
				t.Errorf("asked %d times at first", n)
			}
			if second, n := request(c.certificate, c.answer); second != first || n != c.again {
				t.Errorf("then %q with %d questions, want %q with %d", second, n, first, c.again)
			}
		})
	}
	good := valid()
	request(good, "certificate")
	if who, n := request(valid(), ""); who != "" || n != 1 {
		t.Errorf("another connection's certificate was not looked at: %q", who)
	}
}
