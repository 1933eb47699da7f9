package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"unsafe"

	"github.com/containernetworking/cni/libcni"
	"github.com/istio-pod-network/controller/conformance/crio/wire"
	"golang.org/x/sys/unix"
)

// networks are the networks in the configuration directory.
type networks struct {
	config wire.Config
	cni    *libcni.CNIConfig

	loading sync.Mutex // so that what was read last is what stays

	mu     sync.Mutex
	byName map[string]*libcni.NetworkConfigList
	first  string // name of the default network
	file   string // path of the default network
}

// load reads all configurations again, in the order of their names. It skips files that cannot be read, and networks
// with a plugin that does not exist or does not support the network's CNI version.
func (n *networks) load(ctx context.Context) {
	n.loading.Lock()
	defer n.loading.Unlock()
	files, err := libcni.ConfFiles(n.config.ConfDir, []string{".conf", ".conflist", ".json"})
	if err != nil {
		log.Print(err)
	}
	sort.Strings(files)
	byName, first, firstFile := map[string]*libcni.NetworkConfigList{}, n.config.DefaultNetwork, ""
	for _, file := range files {
		list, err := read(file)
		if err == nil {
			_, err = n.cni.ValidateNetworkList(ctx, list)
		}
		if err != nil {
			log.Printf("%s: %v", file, err)
			continue
		}
		if byName[list.Name] != nil {
			continue
		}
		byName[list.Name] = list
		if first == "" {
			first = list.Name
		}
		if first == list.Name {
			firstFile = file
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.byName, n.first, n.file = byName, first, firstFile
}

// read reads a network. Like CRI-O, it makes a list of a single plugin with deprecated functions of libcni.
func read(file string) (*libcni.NetworkConfigList, error) {
	if strings.HasSuffix(file, ".conflist") {
		return libcni.ConfListFromFile(file)
	}
	plugin, err := libcni.ConfFromFile(file) //nolint:staticcheck // as CRI-O
	if err != nil {
		return nil, err
	}
	return libcni.ConfListFromConf(plugin) //nolint:staticcheck // as CRI-O
}

// current returns the default network, nil if there is none.
func (n *networks) current() *libcni.NetworkConfigList {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byName[n.first]
}

// named returns the loaded network of that name, nil if there is none.
func (n *networks) named(name string) *libcni.NetworkConfigList {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.byName[name]
}

// all returns the loaded networks, and the name of the default one.
func (n *networks) all() (lists []*libcni.NetworkConfigList, first string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, list := range n.byName {
		lists = append(lists, list)
	}
	return lists, n.first
}

// network returns the default network in the form of package wire.
func (n *networks) network() (found wire.NetworkOf) {
	list := n.current()
	if list == nil {
		return found
	}
	found.Name = list.Name
	for _, plugin := range list.Plugins {
		found.Plugins = append(found.Plugins, plugin.Network.Type)
	}
	return found
}

// watch reloads the networks on each event that CRI-O treats as a change: a file is created, written or renamed in the
// configuration directory or in a plugin directory, or the file of the default network is removed.
func (n *networks) watch(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return fmt.Errorf("making an instance of inotify: %w", err)
	}
	dirs := map[int32]string{}
	for _, dir := range append([]string{n.config.ConfDir}, n.config.BinDirs...) {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		watch, err := unix.InotifyAddWatch(fd, dir,
			unix.IN_CREATE|unix.IN_MOVED_TO|unix.IN_MODIFY|unix.IN_MOVED_FROM|unix.IN_DELETE)
		if err != nil {
			return fmt.Errorf("watching %s: %w", dir, err)
		}
		dirs[int32(watch)] = dir
	}
	go func() {
		for buffer := make([]byte, 64<<10); ; {
			size, err := unix.Read(fd, buffer)
			if err != nil {
				log.Print("reading events: ", err)
				return
			}
			for rest := buffer[:size]; len(rest) > 0; {
				event := (*unix.InotifyEvent)(unsafe.Pointer(&rest[0]))
				end := unix.SizeofInotifyEvent + int(event.Len)
				name := strings.TrimRight(string(rest[unix.SizeofInotifyEvent:end]), "\x00")
				if event.Mask&unix.IN_DELETE == 0 || filepath.Join(dirs[event.Wd], name) == n.defaultFile() {
					n.load(ctx)
				}
				rest = rest[end:]
			}
		}
	}()
	return nil
}

// defaultFile returns the path of the default network.
func (n *networks) defaultFile() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.file
}
