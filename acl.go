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

func (c *Candidate) nodeACL() []zk.ACL {
	if len(c.acl) == 0 {
		return zk.WorldACL(zk.PermAll)
	}
	return c.acl
}

// checkOpen refuses an election node on which others may create or delete
// ballots, whatever the ballots' own ACL: ZooKeeper asks the parent's.
func (c *Candidate) checkOpen(ctx context.Context) error {
	var existing []zk.ACL
	if err := c.session.do(ctx, func(conn *zk.Conn) (err error) {
		existing, _, err = conn.GetACL(c.path)
		return err
	}); err != nil {
		return err
	}
	allowed, asCreator := c.acl, false
	for _, entry := range c.acl {
		if entry.Scheme == "auth" {
			// The server stores the credentials of the connection instead.
			asCreator = true
			for _, a := range c.session.opts.Auth {
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
		if asCreator && !c.session.owned && entry.Scheme != "world" && entry.Scheme != "ip" {
			mine = true // the credentials of a caller's connection are not known here
		}
		if entry.Perms&dangerous != 0 && !mine {
			return fmt.Errorf("%w: %s lets %s:%s in", ErrOpenElection, c.path, entry.Scheme, entry.ID)
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
