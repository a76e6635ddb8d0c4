package testutil_test

// A tampering stands between a script and a server, and makes the server look as if it had a fault. The wrong of a
// server's answers is shown by changing packets, and that of its doings by changing what it is asked for.
type tampering struct {
	name string

	// packet replaces one from the server by those that it returns, op being the request whose answer is awaited. It
	// must return at least one, if need be by reading on.
	packet func(w *wire, op string, p packet) []packet

	// request replaces a request.
	request func(st step) step

	// password replaces the wrong one of a stranger.
	password func(r *run, id int64) []byte
}
