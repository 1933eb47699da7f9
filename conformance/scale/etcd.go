package main

import (
	encoding "encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
)

// etcd is the address of etcd's JSON gateway.
type etcd string

// etcdRange is etcd's answer about some of its keys, as of a revision.
type etcdRange struct {
	Header struct {
		Revision string `json:"revision"`
	} `json:"header"`
	KVs []struct{ Value []byte } `json:"kvs"`
}

// ask sends a request.
func (e etcd) ask(path, body string, answer any) error {
	response, err := http.Post(string(e)+path, "application/json", strings.NewReader(body))
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("etcd: %s: %s", path, response.Status)
	}
	return json.NewDecoder(response.Body).Decode(answer)
}

// has returns all keys below a path.
func (e etcd) has(path, options string) (all etcdRange, err error) {
	err = e.ask("/v3/kv/range", fmt.Sprintf(`{"key": %q, "range_end": %q, %s}`, base64([]byte(path+"/")),
		base64([]byte(path+"0")), options), &all)
	return all, err
}

// compact drops all old revisions, as the API server does every five minutes.
func (e etcd) compact() error {
	head, err := e.has("x", `"count_only": true`)
	if err != nil {
		return err
	}
	return e.ask("/v3/kv/compaction", fmt.Sprintf(`{"revision": %q, "physical": true}`, head.Header.Revision), &head)
}

func base64(text []byte) string { return encoding.StdEncoding.EncodeToString(text) }
