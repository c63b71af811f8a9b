package eviction

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
)

// Amount is a number of bytes or things, or, if that is zero, a share of all there are.
type Amount struct {
	Number int64
	Share  float64 // 0.1 is 10 %
}

func (a Amount) of(capacity int64) int64 {
	if a.Number != 0 {
		return a.Number
	}
	return int64(float64(capacity) * a.Share)
}

// Threshold is where a signal counts as short.
type Threshold struct {
	Signal Signal
	// Below this amount available, the threshold is met.
	Below Amount
	// Grace is how long it must be met before pods are evicted. Zero: a hard threshold.
	Grace time.Duration
	// Reclaim is how much more than Below must be available again before the eviction ends.
	Reclaim Amount
}

// Hard tells that pods are evicted at once, without regard to their grace periods.
func (t Threshold) Hard() bool { return t.Grace == 0 }

func (t Threshold) met(o Observations, enough bool) bool {
	got, measured := o[t.Signal]
	if !measured {
		return false
	}
	below := t.Below.of(got.Capacity)
	if enough {
		below += t.Reclaim.of(got.Capacity)
	}
	return got.Available < below
}

// Default are the hard thresholds of a node that is not told otherwise: the kubelet's, and one for
// process ids that leaves room to log in and look.
func Default() map[string]string {
	return map[string]string{
		string(MemoryAvailable): "100Mi", string(NodeFsAvailable): "10%", string(NodeFsInodesFree): "5%",
		string(ImageFsAvailable): "15%", string(ImageFsInodesFree): "5%", string(PIDAvailable): "5%",
	}
}

// Settings are thresholds as a configuration file has them: signals and amounts, or durations.
type Settings struct {
	// Hard by default is Default; as with the kubelet, whoever sets any sets all.
	Hard map[string]string
	Soft map[string]string
	// SoftGrace has a duration for each signal in Soft.
	SoftGrace map[string]string
	// MinimumReclaim by signal.
	MinimumReclaim map[string]string
}

// Thresholds translates settings. Errors name the fields by their names in a configuration file.
func (s Settings) Thresholds() ([]Threshold, field.ErrorList) {
	hard := s.Hard
	if len(hard) == 0 {
		hard = Default()
	}
	var errs field.ErrorList
	reclaim := amounts(field.NewPath("evictionMinimumReclaim"), s.MinimumReclaim, &errs)
	grace := durations(field.NewPath("evictionSoftGracePeriod"), s.SoftGrace, &errs)
	var list []Threshold
	for signal, below := range amounts(field.NewPath("evictionHard"), hard, &errs) {
		list = append(list, Threshold{Signal: signal, Below: below, Reclaim: reclaim[signal]})
		if signal == MemoryAvailable {
			list = append(list, Threshold{Signal: AllocatableMemory, Below: below, Reclaim: reclaim[signal]})
		}
	}
	soft := field.NewPath("evictionSoft")
	for signal, below := range amounts(soft, s.Soft, &errs) {
		if grace[signal] == 0 {
			errs = append(errs, field.Required(field.NewPath("evictionSoftGracePeriod").Key(string(signal)),
				"evictionSoft has this signal: say how long it may last, like 1m30s"))
		}
		list = append(list, Threshold{Signal: signal, Below: below, Grace: grace[signal], Reclaim: reclaim[signal]})
	}
	slices.SortFunc(list, func(a, b Threshold) int {
		return cmp.Or(cmp.Compare(a.Signal.rank(), b.Signal.rank()), cmp.Compare(a.Grace, b.Grace))
	})
	return list, errs
}

// amounts reads values such as 100Mi and 10%. 0% and 100% turn a signal off, as with the kubelet.
func amounts(path *field.Path, values map[string]string, errs *field.ErrorList) map[Signal]Amount {
	out := map[Signal]Amount{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		value := values[name]
		if !known(path, name, errs) || value == "0%" || value == "100%" {
			continue
		}
		amount, err := parseAmount(value)
		if err != nil {
			*errs = append(*errs, field.Invalid(path.Key(name), value, err.Error()))
			continue
		}
		out[Signal(name)] = amount
	}
	return out
}

func known(path *field.Path, name string, errs *field.ErrorList) bool {
	if slices.Contains(configurable, Signal(name)) {
		return true
	}
	*errs = append(*errs, field.NotSupported(path, Signal(name), configurable))
	return false
}

func parseAmount(value string) (Amount, error) {
	if number, ok := strings.CutSuffix(value, "%"); ok {
		percent, err := strconv.ParseFloat(number, 64)
		if err != nil || percent < 0 || percent > 100 {
			return Amount{}, fmt.Errorf("must be a percentage between 0%% and 100%%, like 10%%")
		}
		return Amount{Share: percent / 100}, nil
	}
	q, err := resource.ParseQuantity(value)
	if err != nil || q.Sign() <= 0 {
		return Amount{}, fmt.Errorf("must be a positive quantity like 100Mi, or a percentage like 10%%")
	}
	return Amount{Number: q.Value()}, nil
}

func durations(path *field.Path, values map[string]string, errs *field.ErrorList) map[Signal]time.Duration {
	out := map[Signal]time.Duration{}
	for _, name := range slices.Sorted(maps.Keys(values)) {
		if !known(path, name, errs) {
			continue
		}
		d, err := time.ParseDuration(values[name])
		if err != nil || d <= 0 {
			*errs = append(*errs, field.Invalid(path.Key(name), values[name], "must be a positive duration like 1m30s"))
			continue
		}
		out[Signal(name)] = d
	}
	return out
}
