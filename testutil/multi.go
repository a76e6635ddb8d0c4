package testutil

import (
	"errors"
	"slices"
)

var (
	// errMulti is of what ZooKeeper does not understand: an operation that may not be in a
	// multi, reads and writes together, or a record that ends too early.
	errMulti = errors.New("not the operations of a multi")
	// errNullACL is of what it stumbles over before it has taken a zxid.
	errNullACL = errors.New("a create without a list of access rights")
)

// decodeMulti reads the operations of a multi or a multiRead, up to the first that
// cannot be read.
func decodeMulti(release Release, d *decoder) (ops []write, reads bool, err error) {
	understood := true // all that have been read
	for {
		op, done := Op(d.int32()), d.bool()
		d.int32() // an error, which means nothing in a request
		if d.err != nil {
			return nil, false, errMulti
		}
		if done {
			return ops, reads, nil
		}
		read := false
		switch op {
		case OpGetChildren, OpGetData:
			read = true
		case OpCreate, OpCreate2, OpCreateContainer, OpCreateTTL, OpDelete, OpSetData, OpCheck:
		default:
			return nil, false, errMulti
		}
		w := decodeWrite(op, d)
		if read {
			d.bool() // a watch, which these reads do not set
		} else if op.isCreate() {
			_, known := modeOfFlags(w.flags)
			if d.err == nil && understood && known && w.nullACL && op != OpCreateTTL && release.stumblesOverNullACLs() {
				return nil, false, errNullACL
			}
			w.inMulti(release)
			understood = understood && w.op != opError
		}
		if d.err != nil || len(ops) > 0 && read != reads {
			return nil, false, errMulti
		}
		reads = read
		ops = append(ops, w)
	}
}

// inMulti makes of a create what it means within a multi, opError if it is not
// understood.
func (w *write) inMulti(release Release) {
	mode, known := modeOfFlags(w.flags)
	switch {
	case w.op == OpCreateTTL && known && mode.ttl:
	case w.op == OpCreateTTL || !release.createsKeepTheirCode():
		w.op, w.ttl = opOfFlags(w.flags), -1
	case !known || mode.ttl:
		w.op = opError
	case w.flags == containerFlag:
		w.op = OpCreateContainer
	}
}

// opOfFlags is the operation that a create within a multi becomes when its flags
// alone decide.
func opOfFlags(flags int32) Op {
	switch flags {
	case containerFlag:
		return OpCreateContainer
	case 5, 6:
		return opError // a time to live that was not given: not understood
	}
	return OpCreate
}

// prepareMulti decides on all operations together: all of them, or, when one
// fails, none. Then the ones before it report success that was undone, the ones
// after it that they were never tried.
func (p *preparer) prepareMulti(ops []write) *txn {
	p.pending = make(map[string]*record)
	x := &txn{op: OpMulti, zxid: p.zxid, time: p.now, session: p.session}
	unknown := func(w write) bool { return w.op == opError }
	if p.release.readsMultisFirst() && slices.ContainsFunc(ops, unknown) {
		return p.failed(codeMarshallingError)
	}
	for i, w := range ops {
		if unknown(w) {
			return p.failed(codeMarshallingError)
		}
		sub := p.prepare(w)
		if sub.err == codeMarshallingError {
			return p.failed(codeMarshallingError)
		}
		x.ops = append(x.ops, sub)
		if sub.err == codeOK {
			continue
		}
		for j := range i {
			x.ops[j] = p.failed(codeOK)
		}
		for range ops[i+1:] {
			x.ops = append(x.ops, p.failed(codeRuntimeInconsistency))
		}
		break
	}
	return x
}

// multiHeader writes what stands before each result, and at their end.
func (e *encoder) multiHeader(op Op, done bool, err code) {
	e.int32(int32(op))
	e.bool(done)
	e.int32(int32(err))
}

func (e *encoder) multiResults(results []result) {
	for i := range results {
		r := &results[i]
		switch r.op {
		case OpCreate:
			e.multiHeader(OpCreate, false, codeOK)
			e.string(r.path)
		case OpCreate2, OpCreateContainer, OpCreateTTL:
			e.multiHeader(OpCreate2, false, codeOK)
			e.string(r.path)
			e.stat(&r.stat)
		case OpSetData:
			e.multiHeader(OpSetData, false, codeOK)
			e.stat(&r.stat)
		case opError:
			e.multiHeader(opError, false, r.err)
			e.int32(int32(r.err))
		default:
			e.multiHeader(r.op, false, codeOK)
		}
	}
	e.multiHeader(opError, true, -1)
}
