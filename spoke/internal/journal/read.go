package journal

import (
	"fmt"

	bolt "go.etcd.io/bbolt"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Contents is what a journal holds, read at rest.
type Contents struct {
	ID      string
	Records []Record
	Pending int // events that the hub has not acknowledged
	Desired *syncv1.DesiredState
	ReHome  ReHome
}

// Read looks into the journal of a spoke that does not run, and changes nothing. Errors: ErrAbsent,
// ErrLocked (it runs), ErrNewerSchema, ErrDamaged.
func Read(path string) (Contents, error) {
	if !exists(path) {
		return Contents{}, fmt.Errorf("read journal %s: %w", path, ErrAbsent)
	}
	j, err := open(path, true)
	if err != nil {
		return Contents{}, err
	}
	defer j.Close()
	c := Contents{ID: j.id}
	err = j.view(func(tx *bolt.Tx) error {
		if c.Records, err = records(tx); err != nil {
			return err
		}
		if c.Desired, err = desired(tx); err != nil {
			return err
		}
		if c.ReHome, err = reHome(tx); err != nil {
			return err
		}
		c.Pending = tx.Bucket(eventBucket).Stats().KeyN
		return nil
	})
	return c, err
}
