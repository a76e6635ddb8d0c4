//go:build !linux

package guard

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/go-zookeeper/zk"
)

// Guard is a guard of this process. A nil one does nothing, and there is no other on this system.
type Guard struct{}

// Start returns ErrUnsupported.
func Start(*Options) (*Guard, error) { return nil, ErrUnsupported }

// Init does nothing on this system.
func Init(func() (zk.Dialer, error)) {}

// Hold does nothing on this system.
func (*Guard) Hold(any, *Session) {}

// Await does nothing on this system.
func (*Guard) Await(int) (release func(), err error) { return func() {}, nil }

// AwaitGroup does nothing on this system.
func (*Guard) AwaitGroup(int) (release func(), err error) { return func() {}, nil }

// Close does nothing on this system.
func (*Guard) Close() error { return nil }

// ListenOptions are the options of Listen.
type ListenOptions struct {
	Mode       os.FileMode
	Logger     *slog.Logger
	Listening  func()
	Alive      func()
	AliveEvery time.Duration
}

// Listen returns ErrUnsupported.
func Listen(context.Context, string, *ListenOptions) error { return ErrUnsupported }
