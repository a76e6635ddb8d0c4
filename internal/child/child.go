// Package child starts the processes of long runs, which are for Linux.
package child
