//! Carrying out commands that are written to `ctl`.

use super::control::{Command, Order};
use super::error;
use super::tree::{SdDone, SdPending, SdTree, Waiting, later, token};
use crate::server::{Answer, FileError, RequestId, errno};
use outboard_block::disk::{DiskId, Refusal};
use outboard_block::{Management, UnitState};

/// Session number in the tokens of commands to all disks; no session has it.
pub(super) const BROADCAST: u32 = u32::MAX;

/// A command to all disks.
#[derive(Debug)]
pub(super) struct Broadcast {
    request: RequestId,
    left: usize,
    failure: Option<FileError>,
}

impl SdTree {
    /// Carries out a command to a disk.
    pub(super) fn command(
        &mut self,
        disk: DiskId,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        let token = token(request);
        let now = Answer::Now(data.len());
        let accepted = match Command::parse(data)? {
            Command::Flush => self.disks.flush(disk, token).map(Some),
            Command::Rescan => self.disks.rescan(disk, Some(token)).map(|()| None),
            Command::Trim { start, count } => {
                self.disks.discard(disk, start, count, token).map(Some)
            }
            Command::Part { name, start, end } => {
                let added = self.disks.add_volume(disk, name, start, end);
                return added.map(|()| now).map_err(error::volume);
            }
            Command::DeletePart { name } => {
                return self.disks.remove_volume(disk, name).map(|()| now).map_err(error::volume);
            }
            Command::Manage(order) => return self.order(disk, &order, request),
        };
        later(&self.disks, disk, accepted, request)
    }

    /// Asks or tells a disk something beside its data.
    fn order(
        &mut self,
        disk: DiskId,
        order: &Order,
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        self.check(disk, order)?;
        let password = order.password.as_ref().map(|secret| secret.bytes());
        let accepted = self.disks.manage(disk, order.what, password, token(request));
        if accepted.is_ok() {
            self.waiting.insert(request, Waiting::Order(order.what));
        }
        later(&self.disks, disk, accepted.map(Some), request)
    }

    /// Refuses what would reach another disk than was meant, and what the disk is known to refuse.
    fn check(&self, disk: DiskId, order: &Order) -> Result<(), FileError> {
        let Some(info) = self.disks.info(disk) else { return Err(error::gone()) };
        let name = &info.name;
        if let Some(serial) = &order.serial {
            let words: Vec<_> = info.identity.serial.split_whitespace().collect();
            let (own, what) = match words.join(" ") {
                none if none.is_empty() => (name.clone(), "name, since it has no serial number,"),
                own => (own, "serial number"),
            };
            if *serial != own {
                let message = format!(
                    "{name}: {serial:?} is another disk's; the {what} of this one is {own:?}. \
                     Nothing was done"
                );
                return Err(FileError::new(errno::EINVAL, message));
            }
        }
        let security = info.features.security;
        let denied = |why| Err(FileError::new(errno::EPERM, format!("{name}: {why}")));
        if order.what.takes_password() && security.frozen {
            return denied(
                "its security is frozen: it takes no password before its power is cut, and then \
                 only until something freezes it again, as most firmware does at start",
            );
        }
        if order.what.takes_password() && security.expired {
            return denied("too many wrong passwords were tried; cut the disk's power first");
        }
        if matches!(order.what, Management::SelfTest(_)) && info.state == UnitState::Locked {
            return denied("a locked disk runs no self-test; unlock it first");
        }
        Ok(())
    }

    /// Carries out a command to all disks that can be used.
    pub(super) fn command_to_all(
        &mut self,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<SdPending>, FileError> {
        let command = Command::parse_top(data)?;
        self.last_broadcast = self.last_broadcast.wrapping_add(1);
        let number = self.last_broadcast;
        let token = token(RequestId { session: BROADCAST, place: number });
        let mut left = 0;
        let pending = SdPending { job: None, request };
        for disk in self.disks.ids() {
            let accepted = match command {
                Command::Flush => self.disks.flush(disk, token).map(drop),
                _ => self.disks.rescan(disk, Some(token)),
            };
            match accepted {
                Ok(()) => left += 1,
                // There is nothing to be flushed or found.
                Err(Refusal::NoDisk | Refusal::NoMedium | Refusal::Locked) => {}
                // Nothing was started, so the whole command can wait.
                Err(Refusal::Busy) if left == 0 => return Ok(Answer::Busy),
                Err(refusal) if left == 0 => {
                    return Err(error::refused(&self.disks, disk, refusal));
                }
                // The rest is not done, and the answer will say so.
                Err(refusal) => {
                    let failure = Some(error::refused(&self.disks, disk, refusal));
                    self.broadcasts.insert(number, Broadcast { request, left, failure });
                    return Ok(Answer::Later(pending));
                }
            }
        }
        if left == 0 {
            return Ok(Answer::Now(data.len()));
        }
        self.broadcasts.insert(number, Broadcast { request, left, failure: None });
        Ok(Answer::Later(pending))
    }

    /// One disk is done with a command to all; the answer, if it was the last.
    pub(super) fn broadcast_done(
        &mut self,
        number: u32,
        failure: Option<FileError>,
    ) -> Option<(RequestId, Result<SdDone, FileError>)> {
        let broadcast = self.broadcasts.get_mut(&number)?;
        broadcast.left -= 1;
        broadcast.failure = broadcast.failure.take().or(failure);
        if broadcast.left > 0 {
            return None;
        }
        let Broadcast { request, failure, .. } = self.broadcasts.remove(&number)?;
        Some((request, failure.map_or(Ok(SdDone::All), Err)))
    }
}
