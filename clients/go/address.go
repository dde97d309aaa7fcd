package taskyard

import (
	"net"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
)

const (
	defaultPort    = "50051"
	defaultAddress = "http://127.0.0.1:" + defaultPort
)

// parseAddress reads http://host:port, host:port or host, and returns host:port.
func parseAddress(text string) (string, error) {
	wrong := func(why string) error {
		return newErrorf(codes.InvalidArgument,
			"the address %q %s; it looks like http://127.0.0.1:50051 or host:port", text, why)
	}
	rest := strings.TrimSpace(text)
	if scheme, after, found := strings.Cut(rest, "://"); found {
		switch scheme {
		case "http":
			rest = after
		case "https":
			return "", wrong("asks for TLS, which is not supported")
		default:
			return "", wrong("has the unknown scheme " + strconv.Quote(scheme))
		}
	}
	parsed, err := url.Parse("http://" + strings.TrimRight(rest, "/"))
	if err != nil || parsed.Hostname() == "" || parsed.User != nil ||
		parsed.Path != "" || parsed.RawQuery != "" || parsed.Fragment != "" {
		return "", wrong("is not an address")
	}
	port := parsed.Port()
	if port == "" {
		if strings.HasSuffix(parsed.Host, ":") {
			return "", wrong("has no valid port")
		}
		port = defaultPort
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", wrong("has no valid port")
	}
	return net.JoinHostPort(parsed.Hostname(), port), nil
}
