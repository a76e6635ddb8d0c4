package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/zkelection/election"
)

// The forms in which leaders and candidates are printed: for people, and as JSON for programs. Zxids and tokens go beyond
// what every JSON reader keeps exactly (2^53) only after 2^21 epochs of the ensemble, so they are numbers.

// output is standard output; that its reader has gone is an error of its own.
type output struct{ io.Writer }

var errOutputClosed = errors.New("nobody reads the output")

func (o output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	if isBrokenPipe(err) {
		err = errOutputClosed
	}
	return n, err
}

// payload is a candidate's data in JSON: text as a string, anything else in base64 under another name.
type payload struct {
	Data       *string `json:"data,omitempty"`
	DataBase64 []byte  `json:"dataBase64,omitempty"`
}

func payloadOf(data []byte) payload {
	if utf8.Valid(data) {
		text := string(data)
		return payload{Data: &text}
	}
	return payload{DataBase64: data}
}

func (p payload) bytes() []byte {
	if p.Data != nil {
		return []byte(*p.Data)
	}
	return p.DataBase64
}

type leaderJSON struct {
	payload
	Session string    `json:"session"`
	Zxid    int64     `json:"zxid"`
	Since   time.Time `json:"since"`
}

func leaderOf(l election.Leader) *leaderJSON {
	return &leaderJSON{payloadOf(l.Data), sessionName(l.SessionID), l.Zxid, l.Since.UTC()}
}

// sessionName prints a session as ZooKeeper's own tools do.
func sessionName(id int64) string { return fmt.Sprintf("0x%x", uint64(id)) }

// mostPrinted is how many bytes of data are printed for people: more than any terminal is wide.
const mostPrinted = 1000

// printable shows data on one line of a terminal: as it is when it is plain text, quoted otherwise.
func printable(data []byte) string {
	if len(data) == 0 {
		return `""`
	}
	if len(data) > mostPrinted {
		return printable(data[:mostPrinted]) + "..."
	}
	for _, r := range string(data) {
		if r == utf8.RuneError || r == '"' || r == ' ' || !unicode.IsPrint(r) {
			return strconv.Quote(string(data))
		}
	}
	return string(data)
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

func printJSON(w io.Writer, value any) error {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(value)
}
