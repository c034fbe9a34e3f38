//! What a disk of the fuzzed HBA answers.

use outboard_ahci::spec::ata::checksum;
use outboard_ahci::spec::registers::signature;
use std::sync::LazyLock;

/// Bytes of a block.
pub(super) const BLOCK: usize = 512;

/// A disk: present or not, and the blocks that it answers with.
pub(super) struct Disk {
    pub(super) present: bool,
    pub(super) signature: u32,
    /// It is busy for ever after its next reset.
    pub(super) busy: bool,
    /// Its commands end at once.
    pub(super) prompt: bool,
    /// It answers nothing that the driver asks on its own account.
    pub(super) silent: bool,
    pub(super) identify: [u8; BLOCK],
    pub(super) log: [u8; BLOCK],
    /// The answer to all other commands that read.
    pub(super) reply: [u8; BLOCK],
}

/// Bits of the byte that describes a disk.
mod kind {
    pub(super) const NO_QUEUING: u8 = 1 << 0;
    pub(super) const SHORT_ADDRESSES: u8 = 1 << 1;
    pub(super) const DURABLE_WRITES: u8 = 1 << 2;
    pub(super) const WRITE_CACHE: u8 = 1 << 3;
    pub(super) const NO_LOGS: u8 = 1 << 4;
    pub(super) const LARGE_SECTORS: u8 = 1 << 5;
    /// Two bits: what is there.
    pub(super) const DEVICE: u8 = 3 << 6;
    pub(super) const ATAPI: u8 = 1 << 6;
    pub(super) const MULTIPLIER: u8 = 2 << 6;
    pub(super) const ABSENT: u8 = 3 << 6;
}

impl Disk {
    pub(super) const NONE: Self = Self {
        present: false,
        signature: signature::ATA,
        busy: false,
        prompt: false,
        silent: false,
        identify: [0; BLOCK],
        log: [0; BLOCK],
        reply: [0; BLOCK],
    };

    /// Makes it what `byte` says, without fault.
    pub(super) fn reset(&mut self, byte: u8) {
        *self = Self { present: byte & kind::DEVICE != kind::ABSENT, ..Self::NONE };
        self.signature = match byte & kind::DEVICE {
            kind::ATAPI => signature::ATAPI,
            kind::MULTIPLIER => signature::PORT_MULTIPLIER,
            _ => signature::ATA,
        };
        self.identify = *TEMPLATE;
        let has = |bit| byte & bit != 0;
        if has(kind::NO_QUEUING) {
            self.patch(76, 0x000e);
        }
        if has(kind::SHORT_ADDRESSES) {
            self.patch(83, 0x5008);
        }
        if has(kind::DURABLE_WRITES) {
            self.patch(84, 0x4063);
        }
        if has(kind::WRITE_CACHE) {
            self.patch(85, 0x006b);
        }
        if has(kind::NO_LOGS) {
            self.patch(84, 0x4043);
        }
        if has(kind::LARGE_SECTORS) {
            self.patch(106, 0x5000);
            self.patch(117, 2048);
        }
        if self.signature == signature::ATAPI {
            self.patch(0, 0x8580);
        }
    }

    /// Changes a word of the identification, and its checksum with it.
    pub(super) fn patch(&mut self, word: usize, value: u16) {
        let at = word % 255 * 2;
        for (index, new) in value.to_le_bytes().into_iter().enumerate() {
            let old = core::mem::replace(&mut self.identify[at + index], new);
            self.identify[511] = self.identify[511].wrapping_add(old).wrapping_sub(new);
        }
    }

    /// Makes log 10h (ACS §9.13) name the command with this tag.
    pub(super) fn blame(&mut self, tag: u8, status: u8, error: u8) {
        self.log = [0; BLOCK];
        (self.log[0], self.log[2], self.log[3]) = (tag, status, error);
        self.log[511] = 0u8.wrapping_sub(tag).wrapping_sub(status).wrapping_sub(error);
    }
}

/// What all disks say of themselves, with a good checksum (ACS §7.12, word 255).
static TEMPLATE: LazyLock<[u8; BLOCK]> = LazyLock::new(|| {
    let mut block = [0; BLOCK];
    // Serial number, firmware and model are short; the rest of the text is blank.
    block[20..40].fill(b' ');
    block[46..94].fill(b' ');
    for (word, value) in COMMON {
        block[word * 2..][..2].copy_from_slice(&value.to_le_bytes());
    }
    block[510] = 0xa5;
    block[511] = checksum(&block[..511]);
    block
});

const COMMON: [(usize, u16); 24] = [
    (10, 0x4655),
    (11, 0x5a5a),
    (49, 0x0f00),
    (60, 0x1000),
    (75, 0x001f),
    (76, 0x010e),
    (77, 0x0006),
    (78, 0x016c),
    (79, 0x0040),
    (82, 0x746b),
    (83, 0x7508),
    (84, 0x4063),
    (85, 0x004b),
    (86, 0x3508),
    (87, 0x4063),
    (88, 0x207f),
    (89, 0x0001),
    (90, 0x0001),
    (91, 0x0080),
    (100, 0x1000),
    (106, 0x6003),
    (128, 0x0021),
    (169, 0x0001),
    (217, 0x0001),
];
