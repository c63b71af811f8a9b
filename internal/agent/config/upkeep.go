package config

import (
	"fmt"
	"maps"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/utils/ptr"

	"github.com/everynode/everynode/internal/decide/eviction"
	"github.com/everynode/everynode/internal/decide/garbage"
	"github.com/everynode/everynode/internal/decide/shutdown"
)

// Upkeep is the part of the file by which a node looks after itself. Names, forms and defaults are
// the kubelet's.
type Upkeep struct {
	// ContainerLogMaxSize is where a container's log is rotated, like 10Mi; negative for never.
	ContainerLogMaxSize *string `json:"containerLogMaxSize,omitempty"`
	// ContainerLogMaxFiles is how many files of a log there may be.
	ContainerLogMaxFiles *int32 `json:"containerLogMaxFiles,omitempty"`
	// ContainerLogMonitorInterval is how often their sizes are looked at.
	ContainerLogMonitorInterval *string `json:"containerLogMonitorInterval,omitempty"`

	// ImageGCHighThresholdPercent of the images' disk in use has unused images removed, down to
	// ImageGCLowThresholdPercent. 100 is never.
	ImageGCHighThresholdPercent *int32 `json:"imageGCHighThresholdPercent,omitempty"`
	ImageGCLowThresholdPercent  *int32 `json:"imageGCLowThresholdPercent,omitempty"`
	// ImageMinimumGCAge is how long an image stays in any case, ImageMaximumGCAge how long it may
	// stay unused; 0 for ever.
	ImageMinimumGCAge *string `json:"imageMinimumGCAge,omitempty"`
	ImageMaximumGCAge *string `json:"imageMaximumGCAge,omitempty"`

	// EvictionHard has a quantity or percentage for each signal; below it, pods are evicted.
	EvictionHard map[string]string `json:"evictionHard,omitempty"`
	// EvictionSoft is the same where pods may take their time, after EvictionSoftGracePeriod.
	EvictionSoft            map[string]string `json:"evictionSoft,omitempty"`
	EvictionSoftGracePeriod map[string]string `json:"evictionSoftGracePeriod,omitempty"`
	// EvictionMaxPodGracePeriod bounds the grace periods of softly evicted pods, in seconds.
	EvictionMaxPodGracePeriod *int32 `json:"evictionMaxPodGracePeriod,omitempty"`
	// EvictionMinimumReclaim is how much more than its threshold a signal must regain.
	EvictionMinimumReclaim map[string]string `json:"evictionMinimumReclaim,omitempty"`
	// EvictionPressureTransitionPeriod is how long a pressure condition outlives its cause.
	EvictionPressureTransitionPeriod *string `json:"evictionPressureTransitionPeriod,omitempty"`

	// SystemReserved and KubeReserved are kept from pods: cpu, memory, ephemeral-storage, pid.
	SystemReserved map[string]string `json:"systemReserved,omitempty"`
	KubeReserved   map[string]string `json:"kubeReserved,omitempty"`

	// ShutdownGracePeriod is how long a machine that shuts down waits for its pods; 0 for not at all.
	ShutdownGracePeriod *string `json:"shutdownGracePeriod,omitempty"`
	// ShutdownGracePeriodCriticalPods is the end of it, which daemons and critical pods have.
	ShutdownGracePeriodCriticalPods *string `json:"shutdownGracePeriodCriticalPods,omitempty"`
	// ShutdownGracePeriodByPodPriority divides it by priorities instead.
	ShutdownGracePeriodByPodPriority []ShutdownGracePeriod `json:"shutdownGracePeriodByPodPriority,omitempty"`
}

// ShutdownGracePeriod is the time of pods from a priority on.
type ShutdownGracePeriod struct {
	Priority                   int32 `json:"priority"`
	ShutdownGracePeriodSeconds int64 `json:"shutdownGracePeriodSeconds"`
}

// Settings are what an Upkeep comes to.
type Settings struct {
	// LogMaxSize in bytes, negative for no rotation.
	LogMaxSize  int64
	LogMaxFiles int
	LogInterval time.Duration

	Images garbage.Policy

	// Eviction as it was configured, and the Thresholds that this comes to.
	Eviction           eviction.Settings
	Thresholds         []eviction.Threshold
	PressureTransition time.Duration
	MaxPodGrace        int64 // seconds

	// Reserved is kept from pods.
	Reserved corev1.ResourceList

	Shutdown []shutdown.Period
}

// Settings checks all values and puts defaults where nothing is said. Errors name the fields.
func (u *Upkeep) Settings() (Settings, field.ErrorList) {
	var errs field.ErrorList
	check := func(err error) {
		if err != nil {
			errs = append(errs, &field.Error{Type: field.ErrorTypeInvalid, BadValue: field.OmitValueType{}, Detail: err.Error()})
		}
	}
	s := Settings{
		LogMaxSize: logSize(u.ContainerLogMaxSize, &errs), LogMaxFiles: int(ptr.Deref(u.ContainerLogMaxFiles, 5)),
		LogInterval: duration(&errs, "containerLogMonitorInterval", u.ContainerLogMonitorInterval, 10*time.Second),
		Images: garbage.Policy{
			HighPercent: int(ptr.Deref(u.ImageGCHighThresholdPercent, int32(garbage.Default.HighPercent))),
			LowPercent:  int(ptr.Deref(u.ImageGCLowThresholdPercent, int32(garbage.Default.LowPercent))),
			MinAge:      duration(&errs, "imageMinimumGCAge", u.ImageMinimumGCAge, garbage.Default.MinAge), MaxAge: duration(&errs, "imageMaximumGCAge", u.ImageMaximumGCAge, 0),
		},
		Eviction: eviction.Settings{
			Hard: u.EvictionHard, Soft: u.EvictionSoft, SoftGrace: u.EvictionSoftGracePeriod, MinimumReclaim: u.EvictionMinimumReclaim,
		},
		PressureTransition: duration(&errs, "evictionPressureTransitionPeriod", u.EvictionPressureTransitionPeriod, 5*time.Minute),
		MaxPodGrace:        int64(ptr.Deref(u.EvictionMaxPodGracePeriod, 0)),
		Reserved:           corev1.ResourceList{},
	}
	if len(s.Eviction.Hard) == 0 {
		s.Eviction.Hard = eviction.Default()
	}
	atLeast(&errs, "containerLogMaxFiles", s.LogMaxFiles, 2)
	atLeast(&errs, "evictionMaxPodGracePeriod", int(s.MaxPodGrace), 0)
	if s.LogInterval == 0 {
		errs = append(errs, field.Invalid(field.NewPath("containerLogMonitorInterval"), "0", "must be a positive duration like 10s"))
	}
	check(s.Images.Validate())
	thresholds, wrong := s.Eviction.Thresholds()
	s.Thresholds, errs = thresholds, append(errs, wrong...)
	s.Reserved = add(reserved(&errs, "systemReserved", u.SystemReserved), reserved(&errs, "kubeReserved", u.KubeReserved))
	total := duration(&errs, "shutdownGracePeriod", u.ShutdownGracePeriod, 0)
	critical := duration(&errs, "shutdownGracePeriodCriticalPods", u.ShutdownGracePeriodCriticalPods, 0)
	check(shutdown.Validate(total, critical))
	s.Shutdown = shutdown.Split(total, critical)
	if list := u.ShutdownGracePeriodByPodPriority; len(list) > 0 {
		s.Shutdown = byPriority(&errs, list, u.ShutdownGracePeriod != nil || u.ShutdownGracePeriodCriticalPods != nil)
	}
	return s, errs
}

func duration(errs *field.ErrorList, name string, text *string, otherwise time.Duration) time.Duration {
	if text == nil {
		return otherwise
	}
	d, err := time.ParseDuration(*text)
	if err != nil || d < 0 {
		*errs = append(*errs, field.Invalid(field.NewPath(name), *text, "must be a duration like 1m30s, not negative"))
		return otherwise
	}
	return d
}

func atLeast(errs *field.ErrorList, name string, value, least int) {
	if value < least {
		*errs = append(*errs, field.Invalid(field.NewPath(name), value, fmt.Sprintf("must be at least %d", least)))
	}
}

func logSize(text *string, errs *field.ErrorList) int64 {
	q, err := resource.ParseQuantity(ptr.Deref(text, "10Mi"))
	if err != nil || q.IsZero() {
		*errs = append(*errs, field.Invalid(field.NewPath("containerLogMaxSize"), *text, "must be a quantity like 10Mi, or a negative one for no rotation"))
	}
	return q.Value()
}

// reservable are the resources that can be kept from pods.
var reservable = []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory, corev1.ResourceEphemeralStorage, "pid"}

func reserved(errs *field.ErrorList, name string, values map[string]string) corev1.ResourceList {
	path, list := field.NewPath(name), corev1.ResourceList{}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if !slices.Contains(reservable, corev1.ResourceName(key)) {
			*errs = append(*errs, field.NotSupported(path, corev1.ResourceName(key), reservable))
			continue
		}
		q, err := resource.ParseQuantity(values[key])
		if err != nil || q.Sign() < 0 {
			*errs = append(*errs, field.Invalid(path.Key(key), values[key], "must be a quantity like 500m or 200Mi, not negative"))
			continue
		}
		list[corev1.ResourceName(key)] = q
	}
	return list
}

func add(a, b corev1.ResourceList) corev1.ResourceList {
	for name, q := range b {
		sum := a[name]
		sum.Add(q)
		a[name] = sum
	}
	return a
}

func byPriority(errs *field.ErrorList, list []ShutdownGracePeriod, both bool) []shutdown.Period {
	path := field.NewPath("shutdownGracePeriodByPodPriority")
	if both {
		*errs = append(*errs, field.Forbidden(path, "cannot be given together with shutdownGracePeriod or shutdownGracePeriodCriticalPods"))
	}
	var periods []shutdown.Period
	for i, p := range list {
		if p.ShutdownGracePeriodSeconds < 0 {
			*errs = append(*errs, field.Invalid(path.Index(i).Child("shutdownGracePeriodSeconds"), p.ShutdownGracePeriodSeconds, "must not be negative"))
		}
		periods = append(periods, shutdown.Period{Priority: p.Priority, Seconds: p.ShutdownGracePeriodSeconds})
	}
	return periods
}
