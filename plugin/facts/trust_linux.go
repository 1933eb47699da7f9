package facts

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
)

// trustDir refuses a socket directory in which anybody but root can make or replace names: there, a fake could take the
// place of an agent that is down.
func trustDir(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if uid := owner(info); uid != 0 {
		return fmt.Errorf("its directory %q belongs to uid %d: it must belong to root, with mode 0700", dir, uid)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return fmt.Errorf("its directory %q has mode %#o: nobody but root may write to it, set mode 0700", dir,
			info.Mode().Perm())
	}
	return nil
}

// owner is the uid a file belongs to.
func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// checkPath refuses what the kernel or package net would take for something else: a relative path, an abstract socket
// ("@name", which no directory protects), a path that does not fit sun_path with its terminating zero.
func checkPath(socket string) error {
	const maxPath = len(syscall.RawSockaddrUnix{}.Path) - 1
	if !filepath.IsAbs(socket) {
		return errors.New("its path is not absolute")
	}
	if len(socket) > maxPath {
		return fmt.Errorf("its path has %d bytes, a unix socket's at most %d", len(socket), maxPath)
	}
	return nil
}

// trustPeer refuses a peer that is not root. For a client it is the process that began to listen, as of then.
func trustPeer(conn net.Conn) error {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("a connection of type %T does not tell its peer", conn)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var peer *syscall.Ucred
	var optErr error
	err = raw.Control(func(fd uintptr) {
		peer, optErr = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	switch {
	case err != nil:
		return err
	case optErr != nil:
		return os.NewSyscallError("reading SO_PEERCRED", optErr)
	case peer.Uid != 0:
		return fmt.Errorf("its peer, process %d, runs as uid %d: only root is believed", peer.Pid, peer.Uid)
	}
	return nil
}
