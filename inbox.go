package election

import "sync"

// inbox carries messages to a loop. It is unbounded, so that no sender ever
// waits for the loop, and keeps their order.
type inbox struct {
	signal chan struct{} // has room for one: there is something to take

	mu       sync.Mutex
	messages []any
	closed   bool
}

func newInbox() *inbox {
	return &inbox{signal: make(chan struct{}, 1)}
}

// push adds a message; a nil one only wakes the loop. It reports false if the inbox is closed.
func (b *inbox) push(message any) bool {
	if message != nil && !b.add(message) {
		return false
	}
	select {
	case b.signal <- struct{}{}:
	default:
	}
	return true
}

func (b *inbox) add(message any) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.closed {
		b.messages = append(b.messages, message)
	}
	return !b.closed
}

// take returns what has come since the last call.
func (b *inbox) take() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	messages := b.messages
	b.messages = nil
	return messages
}

// close is for a loop that ends while others must know whether it has had their messages. It returns what has come
// since the last take; nothing comes after that.
func (b *inbox) close() []any {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.take()
}
