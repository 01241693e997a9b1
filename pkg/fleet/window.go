package fleet

import "time"

// Window is a stretch of the week in which something may be done, in a place's own time.
type Window struct {
	Days     [7]bool       // by time.Weekday: the days on which it opens
	From, To time.Duration // since midnight, at most 24h; To at or before From: over midnight
	Zone     *time.Location
}

// Windows are open when one of them is. None: always.
type Windows []Window
