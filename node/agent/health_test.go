package agent

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/moby/moby/api/types/container"

	"shoal/node/runtime"
)

func TestCheckOfServiceAndImage(t *testing.T) {
	ofImage := &container.HealthConfig{Test: []string{"CMD-SHELL", "curl -f localhost"}, Interval: time.Minute, Retries: 5}
	for name, row := range map[string]struct {
		own   *container.HealthConfig
		image runtime.Image
		want  *Check
	}{
		"nobody asks":              {nil, runtime.Image{}, nil},
		"an empty test":            {&container.HealthConfig{}, runtime.Image{}, nil},
		"a command without words":  {&container.HealthConfig{Test: []string{"CMD"}}, runtime.Image{}, nil},
		"a test unknown to Docker": {&container.HealthConfig{Test: []string{"HTTP", "/"}}, runtime.Image{}, nil},
		"the image asks": {nil, runtime.Image{Healthcheck: ofImage}, &Check{Args: []string{"/bin/sh", "-c", "curl -f localhost"},
			Interval: time.Minute, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 5}},
		"by the image's shell": {nil, runtime.Image{Healthcheck: ofImage, Shell: []string{"/bin/ash", "-eo", "pipefail", "-c"}},
			&Check{Args: []string{"/bin/ash", "-eo", "pipefail", "-c", "curl -f localhost"},
				Interval: time.Minute, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 5}},
		"the service will not": {&container.HealthConfig{Test: []string{"NONE"}}, runtime.Image{Healthcheck: ofImage}, nil},
		"the service changes the pace": {&container.HealthConfig{Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: time.Hour, StartInterval: time.Millisecond},
			runtime.Image{Healthcheck: ofImage}, &Check{Args: []string{"/bin/sh", "-c", "curl -f localhost"},
				Interval: time.Second, Timeout: 2 * time.Second, StartPeriod: time.Hour, StartInterval: time.Millisecond, Retries: 5}},
		"the service asks": {&container.HealthConfig{Test: []string{"CMD", "/whoami", "get", "x"}}, runtime.Image{},
			&Check{Args: []string{"/whoami", "get", "x"}, Interval: 30 * time.Second, Timeout: 30 * time.Second, StartInterval: 5 * time.Second, Retries: 3}},
	} {
		if got := newCheck(row.own, row.image); !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: %+v, want %+v", name, got, row.want)
		}
	}
}

// TestHealthStep walks a task through answers that come a second apart.
func TestHealthStep(t *testing.T) {
	const s, h, u = container.Starting, container.Healthy, container.Unhealthy
	for name, row := range map[string]struct {
		period  time.Duration
		from    container.HealthStatus
		answers []int
		want    []container.HealthStatus
	}{
		"well from the start":              {0, s, []int{0, 0}, []container.HealthStatus{h, h}},
		"ill for too long":                 {0, s, []int{1, 2}, []container.HealthStatus{s, u}},
		"one failure is forgiven":          {0, h, []int{1, 0, 1, -1}, []container.HealthStatus{h, h, h, u}},
		"the start period is forgiven":     {3 * time.Second, s, []int{1, 1, 1, 1}, []container.HealthStatus{s, s, s, u}},
		"well before the period is over":   {time.Hour, s, []int{1, 0, 1, 1}, []container.HealthStatus{s, h, h, u}},
		"once unhealthy, it may come back": {0, u, []int{0}, []container.HealthStatus{h}},
	} {
		t.Run(name, func(t *testing.T) {
			c := &Check{Interval: time.Minute, StartInterval: time.Second, StartPeriod: row.period, Retries: 2}
			state := health{started: time.Unix(100, 0)}
			state.Status = row.from
			var got []container.HealthStatus
			for i, code := range row.answers {
				state.note(c, container.HealthcheckResult{Start: state.started.Add(time.Duration(i+1) * time.Second), ExitCode: code})
				got = append(got, state.Status)
			}
			if !slices.Equal(got, row.want) || len(state.Log) != len(row.answers) {
				t.Errorf("%v, want %v; %d kept", got, row.want, len(state.Log))
			}
		})
	}
	state := health{started: time.Unix(100, 0)}
	state.Status = s
	c := &Check{Interval: time.Minute, StartInterval: time.Second, StartPeriod: time.Hour, Retries: 2}
	if got := state.pause(c, time.Unix(101, 0)); got != time.Second {
		t.Errorf("in the start period the next question comes after %s", got)
	}
	for range 9 {
		state.note(c, container.HealthcheckResult{})
	}
	if got := state.pause(c, time.Unix(101, 0)); got != time.Minute || len(state.Log) != healthLog {
		t.Errorf("once healthy the next question comes after %s; %d kept", got, len(state.Log))
	}
}

func TestExposedPorts(t *testing.T) {
	got := exposedPorts(runtime.Image{ExposedPorts: []string{"443/tcp", "80", "53/udp", "x/tcp", "0", "99999/tcp"}})
	if !slices.Equal(got, []uint16{80, 443}) {
		t.Errorf("exposed are %v", got)
	}
}
