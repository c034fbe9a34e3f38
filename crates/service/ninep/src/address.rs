//! Where a server listens.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use thiserror::Error;

/// Where a server listens: `unix:PATH` or `tcp:HOST:PORT`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A Unix socket, for the user's own programs on this machine.
    Unix(PathBuf),
    /// A TCP port; host and port as they were written, with brackets around an IPv6 address.
    Tcp {
        /// Name or number of the host.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
}

impl Address {
    /// The port that 9P has (IANA).
    pub const PORT: u16 = 564;
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => write!(f, "tcp:[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "tcp:{host}:{port}"),
        }
    }
}

/// The text is no address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is no address; write unix:PATH or tcp:HOST:PORT, such as tcp:127.0.0.1:5640")]
pub struct ParseAddressError(String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Self, ParseAddressError> {
        let error = || ParseAddressError(text.to_owned());
        let (kind, rest) = text.split_once(':').ok_or_else(error)?;
        match kind {
            "unix" if !rest.is_empty() => Ok(Self::Unix(rest.into())),
            "tcp" => {
                let (host, port) = rest.rsplit_once(':').unwrap_or((rest, "564"));
                let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
                let host = bare.unwrap_or(host);
                let brackets = bare.is_some() == host.contains(':');
                let port = port.parse().ok().filter(|_| brackets && !host.is_empty());
                Ok(Self::Tcp { host: host.to_owned(), port: port.ok_or_else(error)? })
            }
            _ => Err(error()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_back_as_they_are_written() {
        for text in ["unix:/run/x y", "tcp:localhost:5640", "tcp:[::1]:564", "unix:a:b"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
        let short = Address::Tcp { host: "host".into(), port: Address::PORT };
        assert_eq!("tcp:host".parse(), Ok(short));
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "unix:", "unix", "tcp:", "tcp::5640", "tcp:h:x", "tcp:::1:5", "udp:h:1"] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
