package buffer

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/headpond/headpond/buffer/table"
)

// tally is a file in which a process notes the newest row that was acknowledged
// of each place. The file outlives the process, not the machine: it is never
// flushed to disk. When a process died together with Redis, those that are left
// on its machine, or come later, know from it how many rows are lost. A nil
// tally notes nothing. Safe for concurrent use.
type tally struct {
	dir  string
	file *os.File

	mu     sync.Mutex // guards slots
	slots  map[Place]int64
	noted  map[Place]table.ID
	failed bool
}

// A slot is epoch, seq, and the name of the place with its length before it. A
// table's name is at most 127 bytes (schema, dot, name).
const slotSize = 192

const tallySuffix = ".tally"

func openTally(dir, process string) (*tally, error) {
	if dir == "" || process == "" {
		return nil, nil //nolint:nilnil // documented
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make directory for what is acknowledged: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, process+tallySuffix), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open file for what is acknowledged: %w", err)
	}
	return &tally{dir: dir, file: f, slots: make(map[Place]int64), noted: make(map[Place]table.ID)}, nil
}

// note that rows up to this one were acknowledged, or are about to be.
func (t *tally) note(p Place, id table.ID) {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if !id.After(t.noted[p]) || t.failed {
		return
	}
	t.noted[p] = id
	slot, there := t.slots[p]
	if !there {
		slot = int64(len(t.slots)) * slotSize
		t.slots[p] = slot
	}
	text := binary.LittleEndian.AppendUint64(make([]byte, 0, slotSize), id.Epoch)
	text = binary.LittleEndian.AppendUint64(text, id.Seq)
	if !there {
		name := p.String()
		text = append(append(text, byte(len(name))), name...)
		text = append(text, make([]byte, slotSize-len(text))...)
	}
	if _, err := t.file.WriteAt(text, slot); err != nil {
		t.failed = true // the count of a loss will be too small; nothing else depends on it
	}
}

// of gives what dead processes had acknowledged of a place. Other files are of
// processes that live, or of another database that was at the same address.
func (t *tally) of(p Place, dead []string) (map[string]table.ID, error) {
	if t == nil {
		return nil, nil
	}
	files, err := filepath.Glob(filepath.Join(t.dir, "*"+tallySuffix))
	if err != nil {
		return nil, fmt.Errorf("list files of what was acknowledged: %w", err)
	}
	out := make(map[string]table.ID)
	for _, name := range files {
		process := strings.TrimSuffix(filepath.Base(name), tallySuffix)
		if !slices.Contains(dead, process) {
			continue
		}
		all, err := readTally(name)
		if err != nil {
			return out, err
		}
		if id, ok := all[p]; ok {
			out[process] = id
		}
	}
	return out, nil
}

// readTally reads a file that its process may still be writing.
func readTally(name string) (map[Place]table.ID, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read what was acknowledged: %w", err)
	}
	defer f.Close()
	out := make(map[Place]table.ID)
	slot := make([]byte, slotSize)
	for {
		_, err := io.ReadFull(f, slot)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return out, nil
		}
		if err != nil {
			return out, fmt.Errorf("read what was acknowledged: %w", err)
		}
		n := int(slot[16])
		if n > slotSize-17 {
			continue
		}
		if p, ok := parsePlace(string(slot[17 : 17+n])); ok {
			out[p] = table.ID{Epoch: binary.LittleEndian.Uint64(slot), Seq: binary.LittleEndian.Uint64(slot[8:])}
		}
	}
}

// forget removes the files of dead processes of which all that was acknowledged
// is committed.
func (t *tally) forget(dead []string, committed func(Place, table.ID) bool) error {
	if t == nil {
		return nil
	}
	files, err := filepath.Glob(filepath.Join(t.dir, "*"+tallySuffix))
	if err != nil {
		return fmt.Errorf("list files of what was acknowledged: %w", err)
	}
next:
	for _, name := range files {
		if !slices.Contains(dead, strings.TrimSuffix(filepath.Base(name), tallySuffix)) {
			continue
		}
		all, err := readTally(name)
		if err != nil {
			return err
		}
		for p, id := range all {
			if !committed(p, id) {
				continue next
			}
		}
		_ = os.Remove(name) // again next time
	}
	return nil
}

// close the file; it is removed when nothing is held any more.
func (t *tally) close(remove bool) {
	if t == nil {
		return
	}
	_ = t.file.Close()
	if remove {
		_ = os.Remove(t.file.Name())
	}
}
