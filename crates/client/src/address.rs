//! Where a server is.

use std::{fmt, net::SocketAddr, str::FromStr};

/// The port of an address that names none.
const DEFAULT_PORT: u16 = 50051;

/// Where a server is: read from a URL, `host:port` or `host`, and always written as
/// `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address(String);

/// A text that is no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address {text:?} {why}; it looks like http://127.0.0.1:50051 or host:port")]
pub struct BadAddress {
    /// What was to be read.
    pub text: String,
    /// What is wrong with it, as the end of a sentence that begins with it.
    pub why: String,
}

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let wrong = |why: &str| BadAddress { text: text.to_owned(), why: why.to_owned() };
        let rest = match text.trim().split_once("://") {
            None => text.trim(),
            Some(("http", rest)) => rest,
            Some(("https", _)) => return Err(wrong("asks for TLS, which is not supported")),
            Some((scheme, _)) => return Err(wrong(&format!("has the unknown scheme {scheme:?}"))),
        };
        let authority: http::uri::Authority =
            rest.trim_end_matches('/').parse().map_err(|_| wrong("is not an address"))?;
        if authority.host().is_empty() || authority.as_str().contains('@') {
            return Err(wrong("is not an address"));
        }
        let port = match authority.as_str().strip_prefix(authority.host()).unwrap_or_default() {
            "" => DEFAULT_PORT,
            port => port[1..].parse().map_err(|_| wrong("has no valid port"))?,
        };
        Ok(Self(format!("http://{}:{port}", authority.host())))
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self(format!("http://{address}"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_as_people_write_them() {
        let table = [
            ("http://127.0.0.1:50051", "http://127.0.0.1:50051"),
            ("127.0.0.1:7000", "http://127.0.0.1:7000"),
            ("localhost", "http://localhost:50051"),
            ("http://example.org/", "http://example.org:50051"),
            ("[::1]:9", "http://[::1]:9"),
        ];
        for (text, address) in table {
            assert_eq!(text.parse(), Ok(Address(address.into())), "{text}");
        }
        for wrong in ["", "https://a:1", "ftp://a", "a b", "http://", "a:99999", "a:1/path"] {
            assert!(wrong.parse::<Address>().is_err(), "{wrong}");
        }
    }
}
