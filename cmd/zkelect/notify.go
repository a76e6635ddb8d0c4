package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// notifier speaks to systemd, by the protocol of sd_notify(3). It does nothing where nobody listens.
type notifier struct {
	conn     net.Conn
	interval time.Duration // of signs of life for the watchdog; 0 for none

	mu         sync.Mutex
	isReady    bool
	isStopping bool
	lastStatus string
}

// notifierVariables are what systemd sets; they are not for children.
var notifierVariables = []string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"}

func newNotifier(getenv func(string) string) *notifier {
	n := &notifier{}
	path := getenv("NOTIFY_SOCKET")
	if path == "" {
		return n
	}
	if name, ok := strings.CutPrefix(path, "@"); ok {
		path = "\x00" + name
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return n
	}
	n.conn = conn
	if pid := getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		if micros, err := strconv.ParseInt(getenv("WATCHDOG_USEC"), 10, 64); err == nil && micros > 0 {
			n.interval = time.Duration(micros) * time.Microsecond / 3 // two may be late
		}
	}
	return n
}

// send is called with mu held.
func (n *notifier) send(message string) {
	if n.conn == nil {
		return
	}
	_ = n.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = n.conn.Write([]byte(message)) // systemd may be busy or gone
}

// ready says, once, that the service is up.
func (n *notifier) ready() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isReady {
		n.isReady = true
		n.send("READY=1")
	}
}

// stopping says, once, that it is about to end.
func (n *notifier) stopping() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if !n.isStopping {
		n.isStopping = true
		n.send("STOPPING=1")
	}
}

// status says in a line what the service does.
func (n *notifier) status(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.setStatus(fmt.Sprintf(format, args...))
}

// statusAfter says that the service does something else now than the last status, if that is the last one still.
func (n *notifier) statusAfter(last, format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.lastStatus == last {
		n.setStatus(fmt.Sprintf(format, args...))
	}
}

// setStatus is called with mu held.
func (n *notifier) setStatus(status string) {
	if status != n.lastStatus {
		n.lastStatus = status
		n.send("STATUS=" + strings.ReplaceAll(status, "\n", " "))
	}
}

// watch says that the service is well, while it is, as often as systemd wants to hear it, until stop is called.
func (n *notifier) watch(alive func() bool) (stop func()) {
	if n.interval <= 0 {
		return func() {}
	}
	over, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(n.interval)
		defer ticker.Stop()
		for {
			if alive() {
				n.mu.Lock()
				n.send("WATCHDOG=1")
				n.mu.Unlock()
			}
			select {
			case <-ticker.C:
			case <-over:
				return
			}
		}
	}()
	return func() { close(over); <-ended }
}
