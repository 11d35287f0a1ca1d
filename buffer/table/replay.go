package table

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
)

// A row of the log that replays a dead letter lies in a frame of its own, whose
// column list names the letter behind the table's oid: "16384!3.1.871/1.20:id".
// So the flush that commits the row takes the letter away in the same
// transaction, and one that finds no letter knows that it was replayed before.

// Letter names a dead letter of a table by the row that it was: its partition
// and its id. Both are never given again, as a number that Postgres counts would
// be after a restore.
type Letter struct {
	Partition int
	ID        ID
}

// String is "partition.epoch.seq", the end of the row's receipt.
func (l Letter) String() string {
	return fmt.Sprintf("%d.%d.%d", l.Partition, l.ID.Epoch, l.ID.Seq)
}

// ParseLetter reads "partition.epoch.seq".
func ParseLetter(text string) (l Letter, ok bool) {
	parts := strings.Split(text, ".")
	if len(parts) != 3 {
		return Letter{}, false
	}
	partition, err1 := strconv.ParseUint(parts[0], 10, 16)
	epoch, err2 := strconv.ParseUint(parts[1], 10, 53)
	seq, err3 := strconv.ParseUint(parts[2], 10, 53)
	return Letter{int(partition), ID{epoch, seq}}, err1 == nil && err2 == nil && err3 == nil
}

// Replaying is a column list for the row that replays a dead letter.
func Replaying(header []byte, l Letter) []byte {
	oid, columns, _ := bytes.Cut(header, []byte{'/'})
	out := append(bytes.Clone(oid), '!')
	return append(append(append(out, l.String()...), '/'), columns...)
}

// CutReplay takes the letter out of a column list; replays is false when there
// is none.
func CutReplay(header []byte) (l Letter, columns []byte, replays bool) {
	head, rest, ok := bytes.Cut(header, []byte{'/'})
	oid, letter, named := bytes.Cut(head, []byte{'!'})
	if !ok || !named {
		return Letter{}, header, false
	}
	if l, ok = ParseLetter(string(letter)); !ok {
		return Letter{}, header, false
	}
	return l, append(append(bytes.Clone(oid), '/'), rest...), true
}
