//go:build !unix

package realzk

import (
	"errors"
	"os"
)

func stopOrContinue(*os.Process, bool) error {
	return errors.ErrUnsupported
}
