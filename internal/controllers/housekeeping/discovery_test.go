package housekeeping

import (
	"errors"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestDiscoveryIsNeverEmpty(t *testing.T) {
	refused := errors.New("this server no longer leads")
	var answer []*metav1.APIResourceList
	var failure error
	ask := func() ([]*metav1.APIResourceList, error) { return answer, failure }

	failure = refused
	if _, err := neverEmpty(ask); !errors.Is(err, refused) {
		t.Errorf("a first discovery that fails: %v, want the reason", err)
	}

	answer, failure = []*metav1.APIResourceList{{GroupVersion: "v1"}}, nil
	discover, err := neverEmpty(ask)
	if err != nil {
		t.Fatal(err)
	}
	answer, failure = nil, refused
	if got, err := discover(); len(got) != 1 || !errors.Is(err, refused) {
		t.Errorf("later, when refused: %v, %v; want the last answer and the reason", got, err)
	}
	answer, failure = []*metav1.APIResourceList{{GroupVersion: "v1"}, {GroupVersion: "apps/v1"}}, nil
	if got, err := discover(); len(got) != 2 || err != nil {
		t.Errorf("later, when answered: %v, %v; want the new answer", got, err)
	}
}
