//! A back end's network card in a line of text.

use crate::VhostError;
use outboard_linux::description;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

/// How a card is described.
const SYNTAX: &str = "SOCKET[,queues=N]";

/// The network card of a back end, and how it is to be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VhostCard {
    /// The socket at which the back end listens.
    pub socket: PathBuf,
    /// The most pairs of queues to use.
    pub queues: u16,
}

impl FromStr for VhostCard {
    type Err = VhostError;

    /// Reads `SOCKET[,queues=N]`.
    fn from_str(text: &str) -> Result<Self, VhostError> {
        let error =
            |reason: String| VhostError::Syntax { text: text.into(), reason, syntax: SYNTAX };
        let (socket, options) =
            description::split(text, &[]).ok_or_else(|| error("it names no socket".into()))?;
        let mut card = Self { socket: socket.into(), queues: 1 };
        for option in options {
            match option.split_once('=') {
                Some(("queues", value)) => {
                    let count = value.parse().ok().filter(|count| (1..=8).contains(count));
                    let reason = || format!("there are 1 to 8 pairs of queues, not {value:?}");
                    card.queues = count.ok_or_else(|| error(reason()))?;
                }
                _ => return Err(error(format!("there is no option {option:?}"))),
            }
        }
        Ok(card)
    }
}

impl fmt::Display for VhostCard {
    /// Writes what [`from_str`](Self::from_str) reads.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.socket.display())?;
        if self.queues > 1 { write!(f, ",queues={}", self.queues) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_where_the_card_is_and_how_it_is_used() {
        let card: VhostCard = "/run/a.sock,queues=4".parse().unwrap();
        assert_eq!(card.to_string(), "/run/a.sock,queues=4");
        assert_eq!(card, VhostCard { socket: "/run/a.sock".into(), queues: 4 });
        assert_eq!("x".parse::<VhostCard>().unwrap().to_string(), "x");
        for wrong in ["", ",queues=2", "x,queues=0", "x,queues=9", "x,size=1"] {
            let error = wrong.parse::<VhostCard>().unwrap_err().to_string();
            assert!(error.contains(SYNTAX), "{error}");
        }
    }
}
