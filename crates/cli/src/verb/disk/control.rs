//! A disk's `ctl`: what it says, and what it is told.

use crate::remote::{self, TransferError};
use anyhow::{Context, Result, bail};
use outboard_ninep::client::{Client, Mode, Transferred};

/// A disk of the server.
pub(super) struct Disk {
    client: Client,
    pub(super) name: String,
}

impl Disk {
    /// The disk that is meant: `text` may be a path, as long as it is of the disk itself.
    pub(super) fn find(client: Client, text: &str) -> Result<Self> {
        match remote::names(text)[..] {
            [name] => Ok(Self { client, name: name.to_owned() }),
            _ => bail!("{text} is not a disk, such as sdC0; to see what there is: outboard ls"),
        }
    }

    /// A text file of the disk's.
    pub(super) fn text(&mut self, file: &str) -> Result<String> {
        let path = format!("{}/{file}", self.name);
        let (fid, _) = remote::open(&mut self.client, &path, Mode::Read)?;
        let mut bytes = Vec::new();
        let read = self.client.read_range(&fid, 0, u64::MAX, |part| {
            bytes.extend_from_slice(part);
            Ok::<_, TransferError>(())
        });
        self.client.clunk(fid)?;
        read.with_context(|| path)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// What the disk says of itself.
    pub(super) fn description(&mut self) -> Result<Description> {
        Ok(Description(self.text("ctl")?))
    }

    /// Carries out a command; returns when the disk is done.
    pub(super) fn order(&mut self, command: &[u8]) -> Result<()> {
        let path = format!("{}/ctl", self.name);
        let (fid, _) = remote::open(&mut self.client, &path, Mode::Write)?;
        self.client.start_write(0, &fid, 0, command)?;
        let answer = self.client.finish(|_, answer| match answer {
            Ok(Transferred::Written(count)) if count == command.len() => Ok(()),
            Ok(other) => bail!("an unexpected answer: {other:?}"),
            Err(error) => Err(error.into()),
        })?;
        self.client.clunk(fid)?;
        answer
    }
}

/// What a disk says of itself: lines of a key and its value.
pub(super) struct Description(pub(super) String);

impl Description {
    /// The value of a key; empty if there is none.
    pub(super) fn get(&self, key: &str) -> &str {
        self.lines().find(|(found, _)| *found == key).map_or("", |(_, value)| value)
    }

    pub(super) fn lines(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.lines().map(|line| {
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            (key, value.trim())
        })
    }

    /// What the disk is to be called when something is about to be lost: its serial number, or
    /// its name if it has none.
    pub(super) fn serial(&self) -> String {
        let words: Vec<_> = self.get("serial").split_whitespace().collect();
        match words.join(" ") {
            none if none.is_empty() => self.get("device").to_owned(),
            serial => serial,
        }
    }
}
