package garbage

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var now = time.Date(2026, 11, 21, 18, 0, 0, 0, time.UTC)

func ago(minutes int) time.Time { return now.Add(-time.Duration(minutes) * time.Minute) }

func ids(images []Image) string {
	var list []string
	for _, image := range images {
		list = append(list, image.ID)
	}
	return strings.Join(list, " ")
}

func TestUnused(t *testing.T) {
	images := []Image{
		{ID: "recent", FirstSeen: ago(60), LastUsed: ago(3)},
		{ID: "never-b", FirstSeen: ago(30)},
		{ID: "in-use", FirstSeen: ago(60), LastUsed: now, Kept: true},
		{ID: "never-a", FirstSeen: ago(60)},
		{ID: "long-ago", FirstSeen: ago(90), LastUsed: ago(50)},
		{ID: "just-pulled", FirstSeen: ago(1)},
	}
	if got, want := ids(Default.Unused(images, now)), "never-a never-b long-ago recent"; got != want {
		t.Errorf("unused: %s, want %s", got, want)
	}
	if got := Default.Next(images, now); !got.Equal(ago(1).Add(2 * time.Minute)) {
		t.Errorf("the next one may go at %v", got)
	}
	p := Default
	p.MaxAge = 20 * time.Minute
	for _, c := range []struct {
		since time.Time
		want  string
	}{
		{ago(10), ""}, // an agent that has just started knows of no use
		{ago(120), "never-a never-b long-ago"},
	} {
		if got := ids(p.Old(images, c.since, now)); got != c.want {
			t.Errorf("old, looked at since %v: %q, want %q", c.since, got, c.want)
		}
	}
}

func TestExcess(t *testing.T) {
	for _, c := range []struct {
		name string
		disk Disk
		want int64
	}{
		{"half full", Disk{1000, 500}, 0},
		{"just below", Disk{1000, 160}, 0},
		{"at the threshold", Disk{1000, 150}, 50},
		{"full", Disk{1000, 0}, 200},
		{"more available than there is", Disk{1000, 2000}, 0},
		{"unknown", Disk{}, 0},
	} {
		if got := Default.Excess(c.disk); got != c.want {
			t.Errorf("%s: %d bytes to free, want %d", c.name, got, c.want)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		p    Policy
		want string
	}{
		{Default, ""},
		{Policy{HighPercent: 100, LowPercent: 80}, ""},
		{Policy{HighPercent: 101, LowPercent: 80}, "imageGCHighThresholdPercent 101"},
		{Policy{HighPercent: 85, LowPercent: -1}, "imageGCLowThresholdPercent -1"},
		{Policy{HighPercent: 70, LowPercent: 80}, "must be less than imageGCHighThresholdPercent, which is 70"},
		{Policy{HighPercent: 85, LowPercent: 80, MinAge: -1}, "imageMinimumGCAge"},
		{Policy{HighPercent: 85, LowPercent: 80, MinAge: 2, MaxAge: 1}, "imageMaximumGCAge"},
	} {
		err := c.p.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.p, err, c.want)
		}
	}
}

// TestProperties: nothing that is kept or young ever goes, enough is freed if it can be, and the
// last image taken was needed for it.
func TestProperties(t *testing.T) {
	image := rapid.Custom(func(t *rapid.T) Image {
		i := Image{
			ID: rapid.StringMatching("[a-e]{3}").Draw(t, "id"), Size: rapid.Int64Range(1, 100).Draw(t, "size"),
			Kept: rapid.Bool().Draw(t, "kept"), FirstSeen: ago(rapid.IntRange(0, 10).Draw(t, "seen")),
		}
		if used := rapid.IntRange(-5, 10).Draw(t, "used"); used >= 0 {
			i.LastUsed = ago(used)
		}
		return i
	})
	rapid.Check(t, func(t *rapid.T) {
		images := rapid.SliceOfNDistinct(image, 0, 12, func(i Image) string { return i.ID }).Draw(t, "images")
		want := rapid.Int64Range(0, 500).Draw(t, "bytes")
		unused := Default.Unused(images, now)
		taken := Enough(unused, want)
		var sum, all int64
		for _, i := range unused {
			if i.Kept || now.Sub(i.FirstSeen) < Default.MinAge {
				t.Fatalf("%+v may go", i)
			}
			all += i.Size
		}
		for _, i := range taken {
			sum += i.Size
		}
		if sum < min(want, all) {
			t.Fatalf("frees %d of %d bytes, and could free %d", sum, want, all)
		}
		if n := len(taken); n > 0 && sum-taken[n-1].Size >= want {
			t.Fatalf("frees %d bytes where %d are asked and one image fewer would do", sum, want)
		}
		if !slices.IsSortedFunc(taken, func(a, b Image) int { return a.LastUsed.Compare(b.LastUsed) }) {
			t.Fatalf("not by last use: %v", taken)
		}
	})
}
