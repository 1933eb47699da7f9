package cluster

import (
	"slices"
	"testing"
)

func TestOffered(t *testing.T) {
	names := []string{"cart-0", "cart-1", "web"}
	if got := Offered(names, "", "", "ca", []string{"cart-0"}); !slices.Equal(got, []string{"cart-1"}) {
		t.Errorf("%q", got)
	}
	want := []string{"shop/cart-0", "shop/cart-1", "shop/web"}
	if got := Offered(names, "shop/", "", "shop/", nil); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}
