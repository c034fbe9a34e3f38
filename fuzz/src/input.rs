//! The fuzzer's bytes, taken from the front.

/// Steps that are made at most, which bounds what one input costs.
pub(crate) const MAX_STEPS: usize = 128;
/// Polls at one instant until a driver must let time pass.
pub(crate) const MAX_POLLS: u32 = 32;
/// By how much time advances, in milliseconds.
pub(crate) const ADVANCE_MS: [u64; 8] = [1, 10, 100, 600, 1500, 5000, 31_000, 3_600_000];

/// Input that is read byte by byte; zeros follow its end.
pub(crate) struct Input<'a>(pub(crate) &'a [u8]);

/// Values of registers that mean something somewhere.
const VALUES: [u32; 16] = [
    0,
    u32::MAX,
    0x0000_0101,
    0xeb14_0101,
    0x9669_0101,
    0x0000_0050,
    0x0000_0080,
    0x0000_4051,
    0x0000_0133,
    0x0000_0001,
    0x8000_0000,
    0x4000_0001,
    0x0400_0000,
    0x7fff_ffff,
    0x0000_c017,
    0x0000_ffff,
];

impl Input<'_> {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    pub(crate) fn half(&mut self) -> u16 {
        u16::from_le_bytes([self.byte(), self.byte()])
    }

    /// What a register that has the value `now` is to be instead: mostly in one byte.
    pub(crate) fn value(&mut self, now: u32) -> u32 {
        let code = self.byte();
        let bit = 1 << (code & 0x1f);
        match code >> 5 {
            0 => VALUES[usize::from(code & 0xf)],
            1 => bit,
            2 | 3 => now ^ bit,
            4 => now | bit,
            5 => now & !bit,
            6 => u32::from(code & 0x1f),
            _ => u32::from(self.half()) | u32::from(self.half()) << 16,
        }
    }

    /// The next bytes, at most `most`.
    pub(crate) fn bytes(&mut self, most: usize) -> &[u8] {
        let (taken, rest) = self.0.split_at(most.min(self.0.len()));
        self.0 = rest;
        taken
    }
}
