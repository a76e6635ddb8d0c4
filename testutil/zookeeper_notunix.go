//go:build !unix

package testutil

import (
	"errors"
	"os"
)

func stopOrContinue(*os.Process, bool) error {
	return errors.ErrUnsupported
}
