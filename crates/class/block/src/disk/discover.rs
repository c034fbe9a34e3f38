//! Disks that come and go.

use super::DiskId;
use super::lent::Terms;
use super::locks::Claims;
use super::set::{Disk, Disks};
use super::statistics::{DiskCounters, Latencies};
use super::volume::Volumes;
use crate::partition::Table;
use crate::unit::{Unit, UnitId, UnitState};
use alloc::collections::VecDeque;
use alloc::format;

/// Whether something is at a unit's place that is a disk, be it one that cannot be read now.
const fn is_disk(state: UnitState) -> bool {
    use UnitState::{Empty, Locked, Ready, Recovering};
    matches!(state, Ready | Recovering | Locked | Empty)
}

impl Disks {
    /// Looks at a driver's units, if anything has happened to one since it was done last: makes
    /// disks of those that are new, and looks for partitions.
    ///
    /// At first it waits until the driver, and those before it, know all of their units, so that
    /// the numbers of disks follow the order of drivers and units. What comes later gets the next
    /// number.
    pub(super) fn discover(&mut self, index: usize) {
        let hosted = &self.drivers[index];
        let changes = hosted.driver.changes();
        if hosted.discovered && hosted.changes == changes {
            return;
        }
        let count = hosted.driver.unit_count();
        let state = |unit: u16| hosted.driver.unit(UnitId(unit)).map(|unit| unit.state);
        if !hosted.discovered
            && ((0..count).any(|unit| state(unit) == Some(UnitState::Starting))
                || self.drivers[..index].iter().any(|hosted| !hosted.discovered))
        {
            return;
        }
        let hosted = &mut self.drivers[index];
        (hosted.discovered, hosted.changes) = (true, changes);
        (0..count).for_each(|unit| self.look_at(index, UnitId(unit)));
    }

    /// Takes note of what has become of a unit.
    fn look_at(&mut self, index: usize, number: UnitId) {
        let hosted = &mut self.drivers[index];
        let Some(unit) = hosted.driver.unit(number) else { return };
        let Some(place) = hosted.places.get_mut(usize::from(number.0)) else { return };
        let state = unit.state;
        let id = match *place {
            Some(id) => id,
            None if is_disk(state) => {
                let id = DiskId(self.disks.len() as u16);
                *place = Some(id);
                let options = hosted.options.iter().find(|(of, _)| *of == number);
                let options = options.map(|(_, options)| *options).unwrap_or_default();
                self.disks.push(Disk {
                    driver: index,
                    unit: number,
                    name: format!("sdC{}", id.0),
                    options,
                    volumes: Volumes::default(),
                    table: Table::default(),
                    claims: Claims::default(),
                    terms: Terms::NONE,
                    queue: VecDeque::new(),
                    counters: DiskCounters::default(),
                    latencies: Latencies::default(),
                    listed: true,
                    scanned: None,
                    known: None,
                    exclusive: None,
                });
                id
            }
            None => return,
        };
        let disk = &mut self.disks[usize::from(id.0)];
        match state {
            UnitState::Absent => disk.listed = false,
            // It is not known yet whether there is something.
            UnitState::Starting => {}
            _ => disk.listed = true,
        }
        let Unit { generation, identity, geometry, features, .. } = unit;
        if state == UnitState::Ready && disk.scanned != Some(*generation) {
            let now = (identity.clone(), geometry.sectors);
            // Of a disk that was only lost for a while everything stays true, for all we know.
            if features.removable || disk.known.as_ref() != Some(&now) {
                disk.forget();
            }
            (disk.scanned, disk.known) = (Some(*generation), Some(now));
            // If there is no memory for it now, the disk has no partitions until it is rescanned.
            let _ = self.rescan(id, None);
        } else if matches!(state, UnitState::Empty | UnitState::Locked) {
            disk.forget();
            (disk.scanned, disk.known) = (None, None);
        }
    }
}

impl Disk {
    /// Forgets what was on it.
    fn forget(&mut self) {
        self.volumes.clear();
        self.table = Table::default();
    }
}
