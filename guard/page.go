package guard

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc64"
	"time"
)

// The memory that a process shares with its guard has a page for each of its sessions, and each page two slots: one is
// written while the other stays as it is, so that a process that is killed in the middle of a write leaves the older
// state whole. The process only writes, the guard only reads, and only when the process has ended: nothing can be full,
// block, or be read half written.
//
// A slot is, in big-endian numbers: sequence (8 bytes), length of the text (8), checksum of these and the text (8), text.
// The text is a record in JSON, or empty when there is nothing to close.

const (
	slotSize   = 8 << 10
	pageSize   = 2 * slotSize
	memorySize = maxSessions * pageSize
	slotHead   = 24
)

var errTooLarge = errors.New("guard: servers and credentials are too long")

// record is a Session as it is written. Its fields are read by guards of other versions: they are only ever added to.
type record struct {
	Servers  []server      `json:"servers"`
	ID       int64         `json:"id"`
	Password []byte        `json:"password"`
	Timeout  time.Duration `json:"timeout"`
	Tick     time.Duration `json:"tick"`
	Auth     []Auth        `json:"auth,omitempty"`
	TLS      *TLS          `json:"tls,omitempty"`
	// Encrypted: the session's own connection was TLS, so nothing is sent in the clear.
	Encrypted bool `json:"encrypted,omitempty"`
}

// server is one ZooKeeper server. A guard dials the addresses that its name had while the session lived: resolved anew,
// it might be another ensemble's by then. Only a dialer of the service's own is given the name.
type server struct {
	Name      string   `json:"name"`
	Addresses []string `json:"addresses,omitempty"`
}

var checksums = crc64.MakeTable(crc64.ECMA)

// page is the writing side of one page. It is not for more than one goroutine at a time.
type page struct {
	number   int
	sequence uint64
}

// put writes a record into the slot of the memory that holds the older state; nil means that there is nothing to close.
func (p *page) put(memory []byte, r *record) error {
	var text []byte
	if r != nil {
		var err error
		if text, err = json.Marshal(r); err != nil {
			return err
		}
	}
	if len(text) > slotSize-slotHead {
		return fmt.Errorf("%w: %d bytes of %d", errTooLarge, len(text), slotSize-slotHead)
	}
	p.sequence++
	slot := memory[uint64(p.number)*pageSize+p.sequence%2*slotSize:][:slotSize]
	var head [slotHead]byte
	binary.BigEndian.PutUint64(head[0:], p.sequence)
	binary.BigEndian.PutUint64(head[8:], uint64(len(text)))
	binary.BigEndian.PutUint64(head[16:], checksum(head[:16], text))
	// In whatever order these stores are done, the checksum does not fit before the last of them.
	copy(slot[slotHead:], text)
	copy(slot, head[:])
	return nil
}

func checksum(head, text []byte) uint64 {
	return crc64.Update(crc64.Checksum(head, checksums), checksums, text)
}

// readSlot returns what a slot holds. A slot that was never written, or not to the end, is not valid.
func readSlot(slot []byte) (sequence uint64, text []byte, valid bool) {
	sequence = binary.BigEndian.Uint64(slot)
	length := binary.BigEndian.Uint64(slot[8:])
	if sequence == 0 || length > slotSize-slotHead {
		return 0, nil, false
	}
	text = slot[slotHead:][:length]
	return sequence, text, checksum(slot[:16], text) == binary.BigEndian.Uint64(slot[16:])
}

// readPage returns what is to be closed, nil for nothing: the newer valid slot counts.
func readPage(memory []byte) (*record, error) {
	var newest uint64
	var newestText []byte
	for slot := range 2 {
		sequence, text, valid := readSlot(memory[slot*slotSize:][:slotSize])
		if valid && sequence > newest {
			newest, newestText = sequence, text
		}
	}
	if len(newestText) == 0 {
		return nil, nil
	}
	r := new(record)
	if err := json.Unmarshal(newestText, r); err != nil {
		return nil, fmt.Errorf("guard: cannot read what the dead process has left: %w", err)
	}
	return r, nil
}
