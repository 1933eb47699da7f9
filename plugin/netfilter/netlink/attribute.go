package netlink

import (
	"fmt"
	"math"

	codec "github.com/mdlayher/netlink"
)

// Attribute is one attribute of a message.
type Attribute = codec.Attribute

// Bytes returns an attribute with the given value.
func Bytes(kind uint16, value []byte) Attribute { return Attribute{Type: kind, Data: value} }

// Text returns an attribute whose value is a zero-terminated string.
func Text(kind uint16, value string) Attribute { return Bytes(kind, append([]byte(value), 0)) }

// Nested returns an attribute that contains attributes.
func Nested(kind uint16, attributes ...Attribute) Attribute {
	data, _ := codec.MarshalAttributes(attributes) // it fails only for invalid lengths, which are never set here
	return NestedBytes(kind, data)
}

// NestedBytes returns an attribute that contains encoded attributes.
func NestedBytes(kind uint16, encoded []byte) Attribute { return Bytes(codec.Nested|kind, encoded) }

// maxValue is the largest value of an attribute in bytes: its length is a u16 and includes a header of 4 bytes
// (include/uapi/linux/netlink.h, struct nlattr).
const maxValue = math.MaxUint16 - 4

// encode returns an error for a value that is too long, also in a nested attribute: the attribute around it is longer.
func encode(attributes []Attribute) ([]byte, error) {
	for _, a := range attributes {
		if len(a.Data) > maxValue {
			return nil, fmt.Errorf("attribute %d has %d bytes, more than %d", a.Type&^codec.Nested, len(a.Data), maxValue)
		}
	}
	return codec.MarshalAttributes(attributes)
}

// Find returns the value of the attribute, ignoring its flags, or nil if it is missing. Of several it returns the last.
func Find(data []byte, kind uint16) (value []byte) {
	_ = Each(data, func(k uint16, v []byte) {
		if k == kind {
			value = v
		}
	})
	return value
}

// Each calls f for each attribute, in order.
func Each(data []byte, f func(kind uint16, value []byte)) error {
	d, err := codec.NewAttributeDecoder(data)
	if err != nil {
		return err
	}
	for d.Next() {
		f(d.Type(), d.Bytes())
	}
	return d.Err()
}
