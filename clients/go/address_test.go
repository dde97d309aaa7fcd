package taskyard

import (
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
)

func TestAddressesAreTakenAsPeopleWriteThem(t *testing.T) {
	for text, expected := range map[string]string{
		"http://127.0.0.1:50051": "127.0.0.1:50051",
		"127.0.0.1:7000":         "127.0.0.1:7000",
		" localhost ":            "localhost:50051",
		"http://example.org/":    "example.org:50051",
		"[::1]:9":                "[::1]:9",
		"[::1]":                  "[::1]:50051",
	} {
		if target, err := parseAddress(text); err != nil || target != expected {
			t.Errorf("%q: %q, %v", text, target, err)
		}
	}
	for _, wrong := range []string{
		"", "https://a:1", "ftp://a", "a b", "http://", "a:99999", "a:", "a:b", "a:1/path", "u@a", "a?b", ":1",
	} {
		_, err := parseAddress(wrong)
		var failed *Error
		if !errors.As(err, &failed) || failed.Code != codes.InvalidArgument {
			t.Errorf("%q: %v", wrong, err)
		}
	}
}
