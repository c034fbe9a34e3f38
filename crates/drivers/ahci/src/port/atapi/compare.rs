//! Whether the medium in a drive is the one that was there before. A drive that was reset says no
//! more than that it was; what it has may have been exchanged meanwhile for a disc of the same size.

use super::super::memory::Data;
use super::super::startup::INTERNAL_SLOT;
use super::super::{Context, Port};
use super::fingerprint::{Digest, Fingerprint, PLACES};
use super::{Asked, Medium};
use crate::config::limit;
use crate::event::Event;
use crate::spec::atapi::{SECTOR_BYTES, Sense, SenseKey, code};
use outboard_block::{Completion, UnitState};
use outboard_hw::Registers;

/// A medium that is being told from the one before.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Found {
    sectors: u64,
    /// Which of the places is read.
    place: usize,
    fingerprint: Fingerprint,
}

impl<R: Registers> Port<R> {
    /// There is a medium of so many sectors: looks at what is on it, if that matters.
    pub(super) fn compare_medium(
        &mut self,
        sectors: u64,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(drive) = &mut self.drive else { return };
        let known = drive.medium && drive.doubt == Medium::Same;
        if known && sectors == self.unit.geometry.sectors {
            return self.medium_is_known(context);
        }
        drive.found = Found { sectors, ..Found::default() };
        self.read_next_place(context, done);
    }

    fn read_next_place(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let Some(drive) = &self.drive else { return };
        let place = PLACES.get(drive.found.place).copied();
        let readable = place.is_some_and(|lba| u64::from(lba) < drive.found.sectors);
        if readable && drive.silences < limit::SILENCES {
            self.ask(Asked::Sector, context);
        } else {
            self.compared(context, done);
        }
    }

    /// Reads the sector at the place whose turn it is.
    pub(super) fn issue_sector(&mut self) {
        let Some(drive) = &self.drive else { return };
        let lba = PLACES.get(drive.found.place).copied().unwrap_or(0);
        let (fis, packet) = (drive.transferring(), drive.read(lba, 1));
        self.issue_own(&fis, Some(&packet), Data::Sector);
    }

    pub(super) fn sector_came(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let (Some(drive), Some(memory)) = (&mut self.drive, &self.memory) else { return };
        if memory.transferred(INTERNAL_SLOT) == SECTOR_BYTES {
            let mut digest = Digest::EMPTY;
            memory.sector_blocks().for_each(|block| digest.update(&block));
            drive.found.fingerprint.add(drive.found.place, digest);
        }
        drive.found.place += 1;
        self.read_next_place(context, done);
    }

    /// The sector could not be read.
    pub(super) fn sector_refused(
        &mut self,
        sense: Option<Sense>,
        context: &Context<'_>,
        done: &mut dyn FnMut(Completion),
    ) {
        let Some(drive) = &mut self.drive else { return };
        match sense.map(|sense| (sense.key, sense.what())) {
            // Perhaps it is no longer the medium whose sectors were read: all begins anew.
            Some((SenseKey::UNIT_ATTENTION | SenseKey::NOT_READY, _)) => {
                return self.medium_explained(sense, context, done);
            }
            Some((SenseKey::ILLEGAL_REQUEST, code::INVALID_COMMAND)) if !drive.long_reads => {
                drive.long_reads = true;
                return self.ask(Asked::Sector, context);
            }
            Some((
                SenseKey::MEDIUM_ERROR | SenseKey::BLANK_CHECK | SenseKey::ILLEGAL_REQUEST,
                _,
            )) => {}
            _ if drive.evasions < limit::EVASIONS => {
                drive.evasions += 1;
                return self.ask(Asked::Sector, context);
            }
            _ => {}
        }
        drive.found.place += 1;
        self.read_next_place(context, done);
    }

    /// All that can be known of the medium is known.
    fn compared(&mut self, context: &Context<'_>, done: &mut dyn FnMut(Completion)) {
        let Some(drive) = &mut self.drive else { return };
        let Found { sectors, fingerprint, .. } = drive.found;
        let same = drive.medium
            && drive.doubt != Medium::Changed
            && sectors == self.unit.geometry.sectors
            && drive.fingerprint.is_proved_by(&fingerprint);
        (drive.medium, drive.doubt, drive.silences) = (true, Medium::Same, 0);
        if !same {
            drive.fingerprint = fingerprint;
            self.fail_reads(context, done);
            // The first one that is found with the drive is no change.
            self.unit.generation += u32::from(self.unit.state != UnitState::Starting);
            self.unit.geometry = self.drive_geometry(sectors);
            self.record(context, Event::Medium { sectors });
        }
        self.medium_is_known(context);
    }
}
