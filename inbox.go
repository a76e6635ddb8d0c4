package election

import "sync"

// inbox carries messages to a loop. It is unbounded, so that no sender ever
// waits for the loop, and keeps their order.
type inbox struct {
	signal chan struct{} // has room for one: there is something to take

	mu       sync.Mutex
	messages []any
}

func newInbox() *inbox {
	return &inbox{signal: make(chan struct{}, 1)}
}

// push adds a message; a nil one only wakes the loop.
func (b *inbox) push(message any) {
	if message != nil {
		b.mu.Lock()
		b.messages = append(b.messages, message)
		b.mu.Unlock()
	}
	select {
	case b.signal <- struct{}{}:
	default:
	}
}

// take returns what has come since the last call.
func (b *inbox) take() []any {
	b.mu.Lock()
	defer b.mu.Unlock()
	messages := b.messages
	b.messages = nil
	return messages
}
