package netlink

import codec "github.com/mdlayher/netlink"

// Attribute adds one attribute to what is being encoded.
type Attribute func(*codec.AttributeEncoder)

// Bytes is an attribute with the given value.
func Bytes(kind uint16, value []byte) Attribute {
	return func(e *codec.AttributeEncoder) { e.Bytes(kind, value) }
}

// Text is an attribute whose value is a zero-terminated string.
func Text(kind uint16, value string) Attribute {
	return func(e *codec.AttributeEncoder) { e.String(kind, value) }
}

// Nested is an attribute that holds attributes.
func Nested(kind uint16, attributes ...Attribute) Attribute {
	return NestedBytes(kind, func() ([]byte, error) { return encode(attributes) })
}

// NestedBytes is one that holds attributes which are encoded already.
func NestedBytes(kind uint16, encoded func() ([]byte, error)) Attribute {
	return func(e *codec.AttributeEncoder) { e.Do(codec.Nested|kind, encoded) }
}

// encode fails for a value that is too long, over 64 KiB.
func encode(attributes []Attribute) ([]byte, error) {
	e := codec.NewAttributeEncoder()
	for _, add := range attributes {
		add(e)
	}
	return e.Encode()
}

// Parse reads attributes by type, flags aside. Of those with the same type the last one stays.
func Parse(data []byte) (map[uint16][]byte, error) {
	values := map[uint16][]byte{}
	err := Each(data, func(kind uint16, value []byte) { values[kind] = value })
	return values, err
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
