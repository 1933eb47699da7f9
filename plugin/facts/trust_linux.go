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

// trustDir returns an error for a socket directory in which anybody but root can create or rename files: a fake socket
// could replace that of an agent that is down.
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

// owner returns the uid of the file's owner.
func owner(info fs.FileInfo) uint32 { return info.Sys().(*syscall.Stat_t).Uid }

// checkPath returns an error for a path that the kernel or package net would treat differently: a relative path, an
// abstract socket ("@name", which no directory protects), or one that does not fit into sun_path with its terminating
// zero (unix(7)).
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

// trustPeer returns an error unless the peer is root. For a client the peer is the process that called listen(2), with
// the credentials of that moment (SO_PEERCRED, unix(7)).
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
