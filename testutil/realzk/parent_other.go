//go:build !linux

package realzk

import "syscall"

// dieWithParent does nothing here: only Linux offers it without a helper process.
func dieWithParent() *syscall.SysProcAttr { return nil }
