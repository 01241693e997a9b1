package store

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// keptOrders of a cluster are kept; past them the oldest that no spoke waits for go first.
const keptOrders = 200

// bucketOrders is made with the first order.
const bucketOrders = "orders" // cluster NUL distribution NUL nonce -> orderRecord

type orderRecord struct {
	Text      []byte    `json:"text"`
	Signature []byte    `json:"signature"`
	Key       string    `json:"key,omitempty"`
	By        string    `json:"by,omitempty"`
	Sent      time.Time `json:"sent,omitzero"`
	Expires   time.Time `json:"expires,omitzero"`
	Answered  time.Time `json:"answered,omitzero"`
	Accepted  bool      `json:"accepted,omitempty"`
	Answer    string    `json:"answer,omitempty"`
}

func orderOf(key string, r orderRecord) fleet.SignedOrder {
	cluster, rest, _ := strings.Cut(key, "\x00")
	distribution, nonce, _ := strings.Cut(rest, "\x00")
	return fleet.SignedOrder{Cluster: fleet.Cluster(cluster), Distribution: distribution, Nonce: nonce, Text: r.Text, Signature: r.Signature, Key: r.Key,
		By: r.By, Sent: r.Sent, Expires: r.Expires, Answered: r.Answered, Accepted: r.Accepted, Answer: r.Answer}
}

func orderKey(cluster fleet.Cluster, distribution, nonce string) []byte {
	return join(string(cluster), distribution+"\x00"+nonce)
}

// PutOrder records an order that was handed over. ErrNotFound for a cluster that is not there, ErrExists for a nonce
// that is.
func (s *Store) PutOrder(o fleet.SignedOrder, event fleet.Event, entry fleet.Entry) error {
	key := orderKey(o.Cluster, o.Distribution, o.Nonce)
	err := s.update(func(tx *txn) error {
		if _, err := mustCluster(tx, o.Cluster); err != nil {
			return err
		}
		b, err := tx.CreateBucketIfNotExists([]byte(bucketOrders))
		if err != nil {
			return fmt.Errorf("create bucket %s: %w", bucketOrders, err)
		}
		if b.Get(key) != nil {
			return fmt.Errorf("order %s: %w", o.Nonce, ErrExists)
		}
		rec := orderRecord{Text: o.Text, Signature: o.Signature, Key: o.Key, By: o.By, Sent: utc(o.Sent), Expires: utc(o.Expires)}
		if err := s.putOrder(tx, b, key, rec); err != nil {
			return err
		}
		if err := s.dropOrders(tx, b, o.Cluster, o.Sent); err != nil {
			return err
		}
		return appendAll(tx, []fleet.Event{event}, entry)
	})
	if err != nil {
		return fmt.Errorf("order: %w", err)
	}
	return nil
}

func (s *Store) putOrder(tx *txn, b *bolt.Bucket, key []byte, rec orderRecord) error {
	if err := put(b, key, rec); err != nil {
		return err
	}
	s.memory.orders.put(orderOf(string(key), rec))
	return nil
}

// dropOrders keeps the newest of a cluster, and all that its spoke may still answer.
func (s *Store) dropOrders(tx *txn, b *bolt.Bucket, cluster fleet.Cluster, now time.Time) error {
	prefix := join(string(cluster), "")
	var all []fleet.SignedOrder
	c := b.Cursor()
	for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
		rec, err := decode[orderRecord](v, k)
		if err != nil {
			return err
		}
		all = append(all, orderOf(string(k), rec))
	}
	slices.SortFunc(all, func(x, y fleet.SignedOrder) int {
		return cmp.Or(x.Sent.Compare(y.Sent), strings.Compare(x.Nonce, y.Nonce))
	})
	for _, o := range all[:max(0, len(all)-keptOrders)] {
		if o.State(now) == fleet.OrderWaiting {
			continue
		}
		if err := s.deleteOrder(tx, b, orderKey(o.Cluster, o.Distribution, o.Nonce)); err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) deleteOrder(tx *txn, b *bolt.Bucket, key []byte) error {
	s.memory.orders.drop(string(key))
	return b.Delete(key)
}

// Orders lists all, by cluster, distribution and nonce.
func (s *Store) Orders() []fleet.SignedOrder { return s.memory.orders.all() }

// OrdersTo lists those of a subscription, by nonce.
func (s *Store) OrdersTo(cluster fleet.Cluster, distribution string) []fleet.SignedOrder {
	all := s.memory.orders.all()
	if len(all) == 0 {
		return nil
	}
	prefix := string(orderKey(cluster, distribution, ""))
	from, _ := slices.BinarySearchFunc(all, prefix, func(o fleet.SignedOrder, key string) int {
		return strings.Compare(string(orderKey(o.Cluster, o.Distribution, o.Nonce)), key)
	})
	to := from
	for to < len(all) && all[to].Cluster == cluster && all[to].Distribution == distribution {
		to++
	}
	return all[from:to]
}

// answerOrders notes what a cluster's spoke answered. The first answer counts, and only one to an order that the
// cluster was sent.
func (s *Store) answerOrders(tx *txn, cluster fleet.Cluster, events []fleet.Event) error {
	b := tx.Bucket([]byte(bucketOrders))
	if b == nil {
		return nil
	}
	for _, e := range events {
		if e.Order == nil {
			continue
		}
		key := orderKey(cluster, e.Distribution, e.Order.Nonce)
		rec, found, err := get[orderRecord](b, key)
		if err != nil {
			return err
		}
		if !found || !rec.Answered.IsZero() {
			continue
		}
		rec.Answered, rec.Accepted, rec.Answer = utc(e.At), e.Order.Accepted, e.Message
		if err := s.putOrder(tx, b, key, rec); err != nil {
			return err
		}
	}
	return nil
}

// forgetOrders drops those to a cluster that is no more.
func (s *Store) forgetOrders(tx *txn, cluster fleet.Cluster) error {
	b := tx.Bucket([]byte(bucketOrders))
	if b == nil {
		return nil
	}
	prefix := join(string(cluster), "")
	var keys [][]byte
	c := b.Cursor()
	for k, _ := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, _ = c.Next() {
		keys = append(keys, bytes.Clone(k))
	}
	for _, k := range keys {
		if err := s.deleteOrder(tx, b, k); err != nil {
			return fmt.Errorf("forget orders to %s: %w", cluster, err)
		}
	}
	return nil
}
