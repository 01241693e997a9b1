package apply

import (
	"slices"
	"sync"
	"time"
)

const (
	mostTakings   = 3 // of a field by one manager, put back; the next one in takingWindow is the last
	takingWindow  = 10 * time.Minute
	contestedText = "again and again; it is left as it is until another release"
)

// taking is a field that somebody takes from us.
type taking struct {
	object identity
	field  string
	by     string
}

// oscillations counts how often the same field is taken by the same manager, so that two who both mean
// to have it do not flip it for ever. The zero value counts from none. It is safe for concurrent use.
type oscillations struct {
	mu    sync.Mutex
	times map[taking][]time.Time // within the window, in order
}

// take notes a taking. It reports true where there were as many before as are put back: then the field is
// contested, and counting begins anew.
func (o *oscillations) take(t taking, now time.Time) (contested bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	if len(o.times[t]) >= mostTakings {
		delete(o.times, t)
		return true
	}
	if o.times == nil {
		o.times = map[taking][]time.Time{}
	}
	o.times[t] = append(o.times[t], now)
	return false
}

// tense reports that one more taking of a field of this object would be too many.
func (o *oscillations) tense(object identity, now time.Time) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.expire(now)
	for t, times := range o.times {
		if t.object == object && len(times) >= mostTakings {
			return true
		}
	}
	return false
}

// expire forgets what is too long ago, so that what is kept is bounded by what happens in the window.
func (o *oscillations) expire(now time.Time) {
	for t, times := range o.times {
		times = slices.DeleteFunc(times, func(at time.Time) bool { return now.Sub(at) >= takingWindow })
		if len(times) == 0 {
			delete(o.times, t)
		} else {
			o.times[t] = times
		}
	}
}
