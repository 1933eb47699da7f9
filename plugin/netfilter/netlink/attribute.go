package netlink

import (
	"fmt"
	"math"

	codec "github.com/mdlayher/netlink"
)

// Attribute is one attribute of a message.
type Attribute = codec.Attribute

// Bytes is an attribute with the given value.
func Bytes(kind uint16, value []byte) Attribute { return Attribute{Type: kind, Data: value} }

// Text is an attribute whose value is a zero-terminated string.
func Text(kind uint16, value string) Attribute { return Bytes(kind, append([]byte(value), 0)) }

// Nested is an attribute that holds attributes.
func Nested(kind uint16, attributes ...Attribute) Attribute {
	data, _ := codec.MarshalAttributes(attributes) // an error is about lengths that a caller has set
	return NestedBytes(kind, data)
}

// NestedBytes is one that holds attributes which are encoded already.
func NestedBytes(kind uint16, encoded []byte) Attribute { return Bytes(codec.Nested|kind, encoded) }

// maxValue in bytes is what fits behind the header of an attribute.
const maxValue = math.MaxUint16 - 4

// encode fails for a value that is too long, however deep it is nested: what holds it is longer still.
func encode(attributes []Attribute) ([]byte, error) {
	for _, a := range attributes {
		if len(a.Data) > maxValue {
			return nil, fmt.Errorf("attribute %d has %d bytes, more than %d", a.Type&^codec.Nested, len(a.Data), maxValue)
		}
	}
	return codec.MarshalAttributes(attributes)
}

// Find returns the value of an attribute, flags aside, nil if there is none. Of those with the same type it is the last
// one.
func Find(data []byte, kind uint16) (value []byte) {
	_ = Each(data, func(k uint16, v []byte) {
		if k == kind {
			value = v
		}
	})
	return value
}

// Each reads attributes in order.
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
