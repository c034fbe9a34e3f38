//! A back end's disk in a line of text.

use crate::VhostError;
use outboard_linux::description;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// The disk of a back end, and how it is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostDisk {
    /// The socket at which the back end listens.
    pub socket: PathBuf,
    /// Whether it is never written.
    pub read_only: bool,
    /// The most queues to use, unless that is left to the driver.
    pub queues: Option<u16>,
}

impl FromStr for VhostDisk {
    type Err = VhostError;

    /// Reads `SOCKET[,ro][,queues=N]`.
    fn from_str(text: &str) -> Result<Self, VhostError> {
        let syntax = "SOCKET[,ro][,queues=N]";
        let error = |reason: String| VhostError::Syntax { text: text.into(), reason, syntax };
        let (socket, options) =
            description::split(text, &["ro"]).ok_or_else(|| error("it names no socket".into()))?;
        let mut disk = Self { socket: socket.into(), read_only: false, queues: None };
        for option in options {
            match option.split_once('=') {
                None => disk.read_only = true,
                Some(("queues", value)) => {
                    let count = value.parse().ok().filter(|count| (1..=64).contains(count));
                    let reason = || format!("there are 1 to 64 queues, not {value:?}");
                    disk.queues = Some(count.ok_or_else(|| error(reason()))?);
                }
                Some((key, _)) => return Err(error(format!("there is no option {key:?}"))),
            }
        }
        Ok(disk)
    }
}

impl fmt::Display for VhostDisk {
    /// Writes what [`from_str`](Self::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.socket.display())?;
        if let Some(queues) = self.queues {
            write!(f, ",queues={queues}")?;
        }
        f.write_str(if self.read_only { ",ro" } else { "" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_the_disk_is_and_how_it_is_used() {
        let disk: VhostDisk = "/run/a,b.sock,queues=4,ro".parse().unwrap();
        assert_eq!(disk.to_string(), "/run/a,b.sock,queues=4,ro");
        let socket = PathBuf::from("/run/a,b.sock");
        assert_eq!(disk, VhostDisk { socket, read_only: true, queues: Some(4) });
        let plain: VhostDisk = "x".parse().unwrap();
        assert_eq!(plain, VhostDisk { socket: "x".into(), read_only: false, queues: None });
        for wrong in ["", ",ro", "x,queues=0", "x,queues=many", "x,size=1"] {
            let error = wrong.parse::<VhostDisk>().unwrap_err().to_string();
            assert!(error.contains("SOCKET[,ro][,queues=N]"), "{error}");
        }
    }
}
