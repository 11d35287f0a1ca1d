package table

// Partition is where the rows of a key live: FNV-1a of the key text, mod n.
// It is fixed for ever; to change it is to lose the order of keys in flight.
func Partition(key []byte, n int) int { return hash(offset32, key).partition(n) }

// Prefix is the state of the hash after the first bytes of a key: for those
// who try many endings.
func Prefix(start []byte) PartitionHash { return hash(offset32, start) }

// PartitionHash is a hash that is not finished.
type PartitionHash uint32

// Partition of the key that goes on with rest.
func (h PartitionHash) Partition(rest []byte, n int) int { return hash(h, rest).partition(n) }

const (
	offset32 PartitionHash = 2166136261
	prime32                = 16777619
)

func hash(h PartitionHash, text []byte) PartitionHash {
	for _, b := range text {
		h = (h ^ PartitionHash(b)) * prime32
	}
	return h
}

// partition mixes first: FNV's low bits are weak for keys that differ in few
// characters.
func (h PartitionHash) partition(n int) int {
	h ^= h >> 15
	return int(uint32(h) % uint32(n)) //nolint:gosec // partitions are few
}
