package depot

// memory keeps what was used last, within a number of bytes. An encoding that is nil, or in a file, is remembered for
// next to nothing.
type memory struct {
	most, bytes int64
	clock       uint64
	all         map[pair]*remembered
}

type remembered struct {
	e    *Encoding
	cost int64
	used uint64
}

// about is what is remembered beside the bytes: digests and a map's entry.
const about = 512

func newMemory(most int64) memory { return memory{most: most, all: map[pair]*remembered{}} }

func (m *memory) get(p pair) (e *Encoding, found bool) {
	r := m.all[p]
	if r == nil {
		return nil, false
	}
	m.clock++
	r.used = m.clock
	return r.e, true
}

func (m *memory) put(p pair, e *Encoding) {
	cost := int64(about)
	if e != nil {
		cost += int64(len(e.data))
	}
	if cost > largest+about {
		return
	}
	m.drop(p)
	m.clock++
	m.all[p] = &remembered{e, cost, m.clock}
	for m.bytes += cost; m.bytes > m.most; {
		oldest := p
		for q, r := range m.all {
			if r.used < m.all[oldest].used {
				oldest = q
			}
		}
		m.drop(oldest)
	}
}

func (m *memory) drop(p pair) {
	if r := m.all[p]; r != nil {
		m.bytes -= r.cost
		delete(m.all, p)
	}
}
