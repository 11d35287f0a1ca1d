package table

// Partition is where the rows of a key live: FNV-1a of the key text, mod n.
// It is fixed for ever; to change it is to lose the order of keys in flight.
func Partition(key []byte, n int) int {
	const offset, prime = 2166136261, 16777619
	h := uint32(offset)
	for _, b := range key {
		h = (h ^ uint32(b)) * prime
	}
	// FNV's low bits are weak for keys that differ in few characters.
	h ^= h >> 15
	return int(h % uint32(n))
}
