//! Commands that are written to `ctl`.

mod management;
mod secret;

pub(super) use management::Order;
pub(super) use secret::Secret;

use crate::server::{FileError, errno};

/// A command to a disk.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Command<'a> {
    /// Makes everything that was written durable.
    Flush,
    /// Looks for partitions again.
    Rescan,
    /// Tells the disk that `count` sectors from `start` on are no longer needed.
    Trim { start: u64, count: u64 },
    /// Adds a partition, in memory: sectors from `start` up to, not including, `end`.
    Part { name: &'a str, start: u64, end: u64 },
    /// Removes a partition, in memory.
    DeletePart { name: &'a str },
    /// Asks or tells the disk something beside its data.
    Manage(Order),
}

/// The commands to a disk that are about its data, as they are written.
const DATA_COMMANDS: [&str; 5] =
    ["flush", "rescan", "trim START COUNT", "part NAME START END", "delpart NAME"];
const TOP_COMMANDS: &str = "the commands are: flush; rescan";

impl<'a> Command<'a> {
    /// Reads a command to one disk. Numbers are decimal, or hexadecimal after `0x`.
    pub(super) fn parse(text: &'a [u8]) -> Result<Self, FileError> {
        let malformed = |what: String| {
            let commands = DATA_COMMANDS.iter().chain(&management::COMMANDS);
            let commands: Vec<_> = commands.copied().collect();
            let message = format!("{what}; the commands are: {}", commands.join("; "));
            FileError::new(errno::EINVAL, message)
        };
        let words = words(text).ok_or_else(|| malformed("that is no text".into()))?;
        let numeral = |text: &str| {
            number(text).ok_or_else(|| malformed(format!("{text:?} is no number of sectors")))
        };
        match words.as_slice() {
            ["flush"] => Ok(Self::Flush),
            ["rescan"] => Ok(Self::Rescan),
            ["trim", start, count] => {
                Ok(Self::Trim { start: numeral(start)?, count: numeral(count)? })
            }
            ["part", name, start, end] => {
                Ok(Self::Part { name, start: numeral(start)?, end: numeral(end)? })
            }
            ["delpart", name] => Ok(Self::DeletePart { name }),
            [] => Err(malformed("that is no command".into())),
            [verb @ ("flush" | "rescan" | "trim" | "part" | "delpart"), ..] => {
                Err(malformed(format!("{verb:?} has other arguments")))
            }
            [verb, arguments @ ..] => match Order::parse(verb, arguments) {
                Some(order) => order.map(Self::Manage).map_err(malformed),
                None => Err(malformed(format!("there is no command {verb:?}"))),
            },
        }
    }

    /// Reads a command to all disks.
    pub(super) fn parse_top(text: &'a [u8]) -> Result<Self, FileError> {
        match words(text).as_deref() {
            Some(["flush"]) => Ok(Self::Flush),
            Some(["rescan"]) => Ok(Self::Rescan),
            _ => {
                let message = format!("there is no such command to all disks; {TOP_COMMANDS}");
                Err(FileError::new(errno::EINVAL, message))
            }
        }
    }
}

fn words(text: &[u8]) -> Option<Vec<&str>> {
    Some(std::str::from_utf8(text).ok()?.split_ascii_whitespace().collect())
}

fn number(text: &str) -> Option<u64> {
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric());
    match text.strip_prefix("0x") {
        Some(hex) if digits(hex) => u64::from_str_radix(hex, 16).ok(),
        None if digits(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        assert_eq!(Command::parse(b"flush\n"), Ok(Command::Flush));
        let trim = Command::Trim { start: 16, count: 8 };
        assert_eq!(Command::parse(b"  trim 0x10\t8 "), Ok(trim));
        let part = Command::Part { name: "boot", start: 0, end: u64::MAX };
        assert_eq!(Command::parse(b"part boot 0 18446744073709551615"), Ok(part));
        assert_eq!(Command::parse(b"delpart boot"), Ok(Command::DeletePart { name: "boot" }));
        assert_eq!(Command::parse_top(b"rescan"), Ok(Command::Rescan));
    }

    #[test]
    fn what_is_no_command_is_answered_with_the_list_of_commands() {
        for text in [
            &b""[..],
            b"\n",
            b"Flush",
            b"flush now",
            b"trim 1",
            b"trim 1 -1",
            b"trim +1 1",
            b"trim 1 0x",
            b"trim 18446744073709551616 1",
            b"part a 1",
            b"\xff\xfe",
        ] {
            let error = Command::parse(text).unwrap_err();
            assert_eq!(error.number, errno::EINVAL);
            assert!(error.message.contains("trim START COUNT"), "{error}");
        }
        let error = Command::parse_top(b"trim 1 1").unwrap_err();
        assert!(error.message.contains("flush; rescan"), "{error}");
    }
}
