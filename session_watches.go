package election

import (
	"errors"
	"maps"
	"sync"

	"github.com/go-zookeeper/zk"
)

// watchDeletion watches for the end of a znode that can have no children, and
// returns its Stat; nil without an error means that it has ended already. It
// is the watch on its children that is used: of an ephemeral node that one
// fires for nothing but the deletion: new data leaves it alone. Asked of a node that
// is gone it leaves no watch behind; the client's ExistsW would, which is asked where the children may not be read.
func watchDeletion(conn *zk.Conn, path string) (*zk.Stat, <-chan zk.Event, error) {
	_, stat, watch, err := conn.ChildrenW(path)
	if errors.Is(err, zk.ErrNoAuth) {
		// Whoever may not read the node may still see that it is there.
		exists, existing, watch, err := conn.ExistsW(path)
		if err != nil || !exists {
			return nil, nil, err
		}
		return existing, watch, nil
	}
	if errors.Is(err, zk.ErrNoNode) {
		return nil, nil, nil
	}
	return stat, watch, err
}

// spareWatches remembers watches on other candidates' ballots, all of them on their
// end, on acknowledgements, and on requests for transfers. The client cannot give a watch back, so one that is no
// longer waited for stays until its node goes; a candidate that votes again
// behind the same predecessor uses it again, or they would pile up.
type spareWatches struct {
	mu     sync.Mutex
	inc    *incarnation
	armed  map[string]<-chan zk.Event
	sweeps int // how many were there after the last sweep
}

// reuse returns a watch on path that is there and has not fired.
func (w *spareWatches) reuse(inc *incarnation, path string) <-chan zk.Event {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.inc != inc {
		return nil
	}
	watch, ok := w.armed[path]
	if !ok || hasFired(watch) {
		delete(w.armed, path)
		return nil
	}
	return watch
}

func (w *spareWatches) add(inc *incarnation, path string, watch <-chan zk.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if inc.ctx.Err() != nil {
		return // it has gone with its session
	}
	if w.inc != inc {
		w.inc, w.armed, w.sweeps = inc, make(map[string]<-chan zk.Event), 0
	}
	w.armed[path] = watch
	if len(w.armed) > 2*w.sweeps+16 {
		maps.DeleteFunc(w.armed, func(_ string, watch <-chan zk.Event) bool { return hasFired(watch) })
		w.sweeps = len(w.armed)
	}
}

func (w *spareWatches) remove(path string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.armed, path)
}

// hasFired takes the event of a watch that has fired. Whoever else waits on
// the channel finds it closed, and looks what has happened.
func hasFired(watch <-chan zk.Event) bool {
	select {
	case <-watch:
		return true
	default:
		return false
	}
}
