package testutil

import (
	"crypto/sha1"
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	permRead   = 1 << 0
	permWrite  = 1 << 1
	permCreate = 1 << 2
	permDelete = 1 << 3
	permAdmin  = 1 << 4
	permAll    = 0x1f
)

// An identity is who somebody is under an authentication scheme.
type identity struct {
	scheme, id string
}

// An acl is one line of a node's access control list.
type acl struct {
	perms int32
	id    identity
}

var (
	anyone   = identity{"world", "anyone"}
	openACL  = []acl{{permAll, anyone}}
	readOnly = []acl{{permRead, anyone}}
)

// allowed reports whether one of the identities has one of the permissions. An
// empty list gives everything to everybody.
func allowed(list []acl, perm int32, who []identity) bool {
	if len(list) == 0 {
		return true
	}
	if slices.Contains(who, superUser) {
		return true
	}
	for _, a := range list {
		if a.perms&perm == 0 {
			continue
		}
		if a.id == anyone {
			return true
		}
		for _, w := range who {
			if w.scheme == a.id.scheme && matches(w, a.id) {
				return true
			}
		}
	}
	return false
}

func matches(who, rule identity) bool {
	switch who.scheme {
	case "digest":
		return who.id == rule.id
	case "ip":
		return ipMatches(who.id, rule.id)
	}
	return false
}

// fixACL is what a node gets for the list that a client gave: without repeats,
// and with the scheme "auth" replaced by whom the client has proved to be.
func fixACL(list []acl, who []identity) ([]acl, code) {
	if len(list) == 0 {
		return nil, codeInvalidACL
	}
	distinct, ok := withoutRepeats(list)
	if !ok {
		return nil, codeMarshallingError
	}
	fixed := make([]acl, 0, len(distinct))
	for _, a := range distinct {
		known := a.id.scheme == "world" || a.id.scheme == "digest" || a.id.scheme == "ip"
		switch {
		case a.id.id == nullText && known:
			return nil, codeMarshallingError
		case a.id == anyone:
			fixed = append(fixed, a)
		case a.id.scheme == "auth":
			found := false
			for _, w := range who {
				if w.scheme == "digest" {
					found = true
					fixed = append(fixed, acl{a.perms, w})
				}
			}
			if !found {
				return nil, codeInvalidACL
			}
		case a.id.scheme == "digest" && validDigest(a.id.id), a.id.scheme == "ip" && validIP(a.id.id):
			fixed = append(fixed, a)
		default:
			return nil, codeInvalidACL
		}
	}
	return fixed, codeOK
}

// withoutRepeats leaves out what stands in the list before. It is not ok when ZooKeeper
// stumbles over a null: it asks each entry whether it equals those before it, and one that
// has the same rights asks its scheme, which must not be null then, and one of the same
// scheme its id.
func withoutRepeats(list []acl) (distinct []acl, ok bool) {
	for _, a := range list {
		repeated := false
		for _, before := range distinct {
			if a.perms != before.perms {
				continue
			}
			if a.id.scheme == nullText || a.id.scheme == before.id.scheme && a.id.id == nullText {
				return nil, false
			}
			if a == before {
				repeated = true
				break
			}
		}
		if !repeated {
			distinct = append(distinct, a)
		}
	}
	return distinct, true
}

// validDigest asks for two parts as Java's split counts them: trailing empty
// ones do not count.
func validDigest(id string) bool {
	parts := strings.Split(id, ":")
	for len(parts) > 0 && parts[len(parts)-1] == "" {
		parts = parts[:len(parts)-1]
	}
	return len(parts) == 2
}

// parseIPv4 reads an address as ZooKeeper does, which knows no others than those
// of four decimal parts.
func parseIPv4(s string) (addr uint32, ok bool) {
	parts := strings.Split(s, ".")
	for _, part := range parts {
		n, err := strconv.Atoi(part) // which takes a sign, as Java does
		if err != nil || n < 0 || n > 0xff {
			return 0, false
		}
		addr = addr<<8 | uint32(n)
	}
	return addr, len(parts) == 4
}

// parseIPRule reads an address with the number of bits that count.
func parseIPRule(rule string) (addr uint32, bits int, ok bool) {
	host, mask, hasMask := strings.Cut(rule, "/")
	addr, ok = parseIPv4(host)
	bits = 32
	if ok && hasMask {
		var err error
		bits, err = strconv.Atoi(mask)
		ok = err == nil && bits >= 0 && bits <= 32
	}
	return addr, bits, ok
}

func validIP(rule string) bool {
	_, _, ok := parseIPRule(rule)
	return ok
}

func ipMatches(id, rule string) bool {
	addr, bits, ok := parseIPRule(rule)
	who, known := parseIPv4(id)
	return ok && known && (addr^who)>>(32-bits) == 0
}

// superUser is what the connection of one is besides the user that it has proved.
var superUser = identity{"super", ""}

// Digest is the identity that a user and password prove to ZooKeeper's scheme digest,
// as an access right or ServerOptions.SuperDigest names it.
func Digest(user, password string) string { return digestOf(user + ":" + password).id }

// digestOf is the identity that a "user:password" pair proves, as a text.
func digestOf(credentials string) identity {
	credentials = asText([]byte(credentials))
	user, _, _ := strings.Cut(credentials, ":")
	sum := sha1.Sum([]byte(credentials))
	return identity{"digest", user + ":" + base64.StdEncoding.EncodeToString(sum[:])}
}

// hash is what maskDigests hides. To Java a line ends by one of these characters.
var hash = regexp.MustCompile(`:[^\n\r\x{85}\x{2028}\x{2029}]*`)

// maskDigests hides the password hashes from a reader who may not administer
// the node.
func maskDigests(list []acl) []acl {
	masked := make([]acl, len(list))
	for i, a := range list {
		if a.id.scheme == "digest" {
			a.id.id = hash.ReplaceAllString(a.id.id, ":x")
		}
		masked[i] = a
	}
	return masked
}
