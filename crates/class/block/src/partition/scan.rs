//! Finding the partitions of a disk, step by step.

use super::gpt::Header;
use super::mbr::{self, Entry};
use super::{Copy, Damage, Kind, Partition, Scheme, Table, Warning};
use alloc::string::String;
use alloc::vec::Vec;

/// Links that a chain of logical partitions may have. Each costs a read.
const MAX_LINKS: u32 = 256;
/// Number of the first logical partition.
const FIRST_LOGICAL: u32 = 5;

/// What the scanner wants next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// To be [supplied](Scanner::supply) with these sectors, which lie on the disk.
    Read {
        /// First logical sector.
        lba: u64,
        /// Logical sectors; at least 1, and together at most a MiB or one sector.
        sectors: u64,
    },
    /// Nothing: this is what was found.
    Done(Table),
}

/// Finds the partitions of a disk.
#[derive(Debug)]
pub struct Scanner {
    sectors: u64,
    sector_bytes: u64,
    table: Table,
    state: State,
    /// How the primary GPT was damaged.
    primary_damage: Option<Damage>,
    /// The entries' checksum in the primary GPT, once it was found sound.
    primary_checksum: Option<u32>,
}

#[derive(Debug)]
enum State {
    BootRecord,
    /// The boot record protects a GPT, or (`maybe`) there is none and there may be a GPT.
    Header {
        copy: Copy,
        lba: u64,
        maybe: bool,
    },
    Entries {
        copy: Copy,
        header: Header,
    },
    /// The chain of logical partitions: the next record and its index, the extended partition that
    /// all of them are in, and how many logical partitions were found so far.
    Chain {
        record: u64,
        index: u32,
        extended: Entry,
        found: u32,
    },
    Done,
}

impl Scanner {
    /// A scanner for a disk of `sectors` with `sector_bytes` each.
    pub fn new(sectors: u64, sector_bytes: u32) -> Self {
        let state = if sectors == 0 { State::Done } else { State::BootRecord };
        Self {
            sectors,
            sector_bytes: u64::from(sector_bytes).max(512),
            table: Table::default(),
            state,
            primary_damage: None,
            primary_checksum: None,
        }
    }

    /// What the scanner wants next.
    pub fn step(&mut self) -> Step {
        let (lba, sectors) = match &self.state {
            State::BootRecord => (0, 1),
            State::Header { lba, .. } => (*lba, 1),
            State::Entries { header, .. } => {
                (header.entries_lba, header.entries_sectors(self.sector_bytes).unwrap_or(1))
            }
            State::Chain { record, .. } => (*record, 1),
            State::Done => return Step::Done(core::mem::take(&mut self.table)),
        };
        Step::Read { lba, sectors }
    }

    /// Supplies what the last step asked for; `None` if it could not be read.
    pub fn supply(&mut self, data: Option<&[u8]>) {
        match core::mem::replace(&mut self.state, State::Done) {
            State::BootRecord => self.boot_record(data),
            State::Header { copy, lba, maybe } => self.header(copy, lba, maybe, data),
            State::Entries { copy, header } => self.entries(copy, header, data),
            State::Chain { record, index, extended, found } => {
                self.link(record, index, extended, found, data);
            }
            State::Done => {}
        }
    }

    fn boot_record(&mut self, data: Option<&[u8]>) {
        let Some(sector) = data else {
            self.table.warnings.push(Warning::Unreadable(0));
            return;
        };
        let entries = mbr::parse(sector).unwrap_or_default();
        let used: Vec<_> = entries.into_iter().flatten().collect();
        if used.is_empty() || used.iter().any(Entry::is_protective) {
            if self.sectors > 1 {
                let maybe = used.is_empty();
                self.state = State::Header { copy: Copy::Primary, lba: 1, maybe };
            }
            return;
        }
        self.table.scheme = Some(Scheme::Mbr);
        for (number, entry) in (1..).zip(entries) {
            let Some(entry) = entry else { continue };
            if !entry.is_extended() {
                self.add(number, entry.start, entry);
            } else if matches!(self.state, State::Done) {
                // Only the first extended partition counts.
                self.follow(entry.start, 0, entry, 0);
            }
        }
    }

    fn add(&mut self, number: u32, first_lba: u64, entry: Entry) {
        let Entry { kind, sectors, .. } = entry;
        let label = String::new();
        let kind = Kind::Mbr(kind);
        self.table.add(Partition { number, first_lba, sectors, kind, label }, self.sectors);
    }

    fn follow(&mut self, record: u64, index: u32, extended: Entry, found: u32) {
        let inside = record >= extended.start && record - extended.start < extended.sectors;
        if inside && record < self.sectors {
            self.state = State::Chain { record, index, extended, found };
        } else {
            self.table.warnings.push(Warning::BrokenChain);
        }
    }

    /// A link of the chain: a logical partition, and where the next link is.
    fn link(&mut self, record: u64, index: u32, extended: Entry, found: u32, data: Option<&[u8]>) {
        let Some(entries) = data.and_then(mbr::parse) else {
            self.table.warnings.push(Warning::BrokenChain);
            return;
        };
        let mut found = found;
        if let Some(entry) = entries.into_iter().flatten().find(|entry| !entry.is_extended()) {
            self.add(FIRST_LOGICAL + found, record + entry.start, entry);
            found += 1;
        }
        let next = entries.into_iter().flatten().find(Entry::is_extended);
        let Some(next) = next else { return };
        let next = extended.start + next.start;
        if index + 1 >= MAX_LINKS {
            self.table.warnings.push(Warning::TooMany);
        } else if next <= record {
            // Partitioning tools chain upwards; a step back may be a loop.
            self.table.warnings.push(Warning::BrokenChain);
        } else {
            self.follow(next, index + 1, extended, found);
        }
    }

    fn header(&mut self, copy: Copy, lba: u64, maybe: bool, data: Option<&[u8]>) {
        let header = data.ok_or(Damage::Unreadable);
        match header.and_then(|sector| Header::parse(sector, lba, self.sectors)) {
            Ok(header) => {
                if maybe {
                    self.table.warnings.push(Warning::NoProtectiveMbr);
                }
                self.table.scheme = Some(Scheme::Gpt);
                if copy == Copy::Primary && header.alternate_lba != self.sectors - 1 {
                    self.table.warnings.push(Warning::BackupNotAtEnd);
                }
                self.state = State::Entries { copy, header };
            }
            // Neither protective MBR nor signature: a disk without a table.
            Err(Damage::NoSignature) if maybe => {}
            Err(damage) => {
                self.table.scheme = Some(Scheme::Gpt);
                self.damaged(copy, damage, None);
            }
        }
    }

    fn entries(&mut self, copy: Copy, header: Header, data: Option<&[u8]>) {
        let entries = data.ok_or(Damage::Unreadable);
        match entries.and_then(|sectors| header.partitions(sectors)) {
            Err(damage) => self.damaged(copy, damage, Some(header)),
            Ok(partitions) => match (copy, self.primary_checksum) {
                (Copy::Primary, _) => {
                    self.take(partitions);
                    self.primary_checksum = Some(header.entries_checksum);
                    self.seek_backup(header.alternate_lba);
                }
                (Copy::Backup, None) => self.take(partitions),
                (Copy::Backup, Some(checksum)) if checksum != header.entries_checksum => {
                    self.table.warnings.push(Warning::CopiesDiffer);
                }
                (Copy::Backup, Some(_)) => {}
            },
        }
        let used = copy == Copy::Backup && !self.table.is_hopeless();
        if let Some(damage) = self.primary_damage.filter(|_| used) {
            self.table.warnings.push(Warning::Damaged(Copy::Primary, damage));
        }
    }

    fn take(&mut self, partitions: Vec<Partition>) {
        partitions.into_iter().for_each(|partition| self.table.add(partition, self.sectors));
    }

    /// Looks for the backup: where the primary says, or at the end of the disk.
    fn seek_backup(&mut self, lba: u64) {
        let lba = if lba > 1 && lba < self.sectors { lba } else { self.sectors - 1 };
        if lba > 1 {
            self.state = State::Header { copy: Copy::Backup, lba, maybe: false };
        }
    }

    /// A copy is damaged: goes on with the other one, or gives up.
    fn damaged(&mut self, copy: Copy, damage: Damage, header: Option<Header>) {
        match (copy, self.primary_damage) {
            (Copy::Primary, _) => {
                self.primary_damage = Some(damage);
                let end = self.sectors - 1;
                self.seek_backup(header.map_or(end, |header| header.alternate_lba));
            }
            (Copy::Backup, None) => {
                self.table.warnings.push(Warning::Damaged(Copy::Backup, damage));
            }
            (Copy::Backup, Some(primary)) => {
                self.table.warnings.push(Warning::BothDamaged(primary, damage));
            }
        }
    }
}

impl Table {
    /// Whether both copies of the GPT are damaged.
    fn is_hopeless(&self) -> bool {
        self.warnings.iter().any(|warning| matches!(warning, Warning::BothDamaged(..)))
    }
}
