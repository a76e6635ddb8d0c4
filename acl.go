package election

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"

	"github.com/go-zookeeper/zk"
)

func (e errands) nodeACL() []zk.ACL {
	if len(e.acl) == 0 {
		return zk.WorldACL(zk.PermAll)
	}
	return e.acl
}

// checkOpen refuses an election node on which others may create or delete
// ballots, whatever the ballots' own ACL: ZooKeeper asks the parent's.
func (e errands) checkOpen(ctx context.Context) error {
	var existing []zk.ACL
	if err := e.session.do(ctx, func(conn *zk.Conn) (err error) {
		existing, _, err = conn.GetACL(e.path)
		return err
	}); err != nil {
		return err
	}
	allowed, asCreator := e.acl, false
	for _, entry := range e.acl {
		if entry.Scheme == "auth" {
			// The server stores the credentials of the connection instead.
			asCreator = true
			for _, a := range e.session.opts.Auth {
				allowed = append(slices.Clip(allowed), zk.ACL{Perms: entry.Perms, Scheme: a.Scheme, ID: authID(a)})
			}
		}
	}
	for _, entry := range existing {
		const dangerous = zk.PermCreate | zk.PermDelete | zk.PermAdmin
		mine := slices.ContainsFunc(allowed, func(a zk.ACL) bool {
			// Whoever may not administer the node is not shown the digests.
			user, _, _ := strings.Cut(a.ID, ":")
			return a.Scheme == entry.Scheme && (a.ID == entry.ID || a.Scheme == "digest" && entry.ID == user+":x")
		})
		if asCreator && !e.session.owned && entry.Scheme != "world" && entry.Scheme != "ip" {
			mine = true // the credentials of a caller's connection are not known here
		}
		if entry.Perms&dangerous != 0 && !mine {
			return fmt.Errorf("%w: %s lets %s:%s in", ErrOpenElection, e.path, entry.Scheme, entry.ID)
		}
	}
	return nil
}

// authID is how the server names a credential in an ACL.
func authID(a Auth) string {
	user, _, ok := strings.Cut(string(a.Credentials), ":")
	if a.Scheme != "digest" || !ok {
		return string(a.Credentials)
	}
	sum := sha1.Sum(a.Credentials) //nolint:gosec // see above
	return user + ":" + base64.StdEncoding.EncodeToString(sum[:])
}
