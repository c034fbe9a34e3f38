//! Sockets for disks that come and go.

use crate::server::{Platform, Server, ServerError};
use outboard_block::disk::DiskId;
use outboard_linux::now;
use std::path::{Path, PathBuf};

/// Where each disk has a socket for as long as it is there.
#[derive(Debug)]
pub(crate) struct Follow {
    folder: PathBuf,
    /// Disks that could not have one. They are tried again when they have come back.
    failed: Vec<DiskId>,
}

impl<P: Platform> Server<P> {
    /// Lets virtual machines use all disks by vhost-user, each at a socket in `folder` that is named
    /// after it; those that come later, too. The disks that are there now, with their sockets.
    pub fn export_all(&mut self, folder: &Path) -> Result<Vec<(String, PathBuf)>, ServerError> {
        let mut exported = Vec::new();
        for disk in self.disks().ids() {
            if self.disks().is_present(disk) {
                let (name, socket) = self.socket(disk, folder);
                self.export(disk, &socket)?;
                exported.push((name, socket));
            }
        }
        self.follow = Some(Follow { folder: folder.to_owned(), failed: Vec::new() });
        Ok(exported)
    }

    /// A disk's name, and its socket.
    fn socket(&mut self, disk: DiskId, folder: &Path) -> (String, PathBuf) {
        let name = self.disks().info(disk).map_or_else(String::new, |info| info.name);
        let socket = folder.join(format!("{name}.sock"));
        (name, socket)
    }

    /// Makes sockets for disks that have come, and removes those of disks that have gone.
    pub(crate) fn follow_disks(&mut self) {
        let Some(mut follow) = self.follow.take() else { return };
        for disk in self.disks().ids() {
            match (self.disks().is_present(disk), self.exports.is_open(disk)) {
                (true, false) if !follow.failed.contains(&disk) => {
                    let (name, socket) = self.socket(disk, &follow.folder);
                    let at = socket.display();
                    match self.export(disk, &socket) {
                        Ok(()) => {
                            let what = format_args!("virtual machines can use it at {at}");
                            self.events.log(now(), &name, &what);
                        }
                        Err(error) => {
                            self.events.log(now(), &name, &error);
                            follow.failed.push(disk);
                        }
                    }
                }
                (false, true) => self.exports.close(disk, &self.poller),
                (false, false) => follow.failed.retain(|failed| *failed != disk),
                _ => {}
            }
        }
        self.follow = Some(follow);
    }
}

#[cfg(test)]
mod tests;
