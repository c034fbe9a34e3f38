//! The device's side of a ring, in either layout, which does what the driver asks for.

use crate::space::is_allocated;
use outboard_hw::dma::DeviceView;
use outboard_virtio::queue::Areas;
use outboard_virtio::spec::net::{GSO_ECN, GSO_NONE, GSO_TCP4, GSO_TCP6, GSO_UDP_L4};
use outboard_virtio::spec::packed;
use outboard_virtio::spec::split::{self, AVAILABLE_INDEX, AVAILABLE_RING, USED_INDEX, USED_RING};

/// Pieces of a chain at most: more are a loop.
const MAX_PIECES: usize = 64;
/// Bytes of a frame that comes, and of what stands before it.
const FRAME_BYTES: usize = 12 + 60;

/// A ring that the driver has enabled.
pub(super) struct Ring {
    areas: Areas,
    packed: bool,
    /// What is next: an index, or a descriptor with its wrap counter.
    next: u16,
    wrap: bool,
    used: u16,
    used_wrap: bool,
}

/// A piece of a request.
#[derive(Clone, Copy)]
pub(super) struct Piece {
    address: u64,
    bytes: u32,
    flags: u16,
    next: u16,
}

impl Ring {
    pub(super) const fn new(areas: Areas, packed: bool) -> Self {
        Self { areas, packed, next: 0, wrap: true, used: 0, used_wrap: true }
    }

    /// The same, which goes on where a driver says (`SET_VRING_BASE` of vhost-user).
    pub(super) const fn resumed(mut self, at: u32) -> Self {
        const WRAP: u16 = 1 << 15;
        let (next, used) = (at as u16, (at >> 16) as u16);
        if self.packed {
            (self.next, self.wrap) = (next & !WRAP, next & WRAP != 0);
            (self.used, self.used_wrap) = (used & !WRAP, used & WRAP != 0);
        } else {
            (self.next, self.used) = (next, next);
        }
        self
    }

    pub(super) const fn areas(&self) -> Areas {
        self.areas
    }

    /// Forgets where it was.
    pub(super) const fn stumble(&mut self, how: u8) {
        match how {
            0 => (self.next, self.wrap) = (0, true),
            1 => self.used = self.used.wrapping_add(1) % self.areas.entries,
            2 => self.used_wrap = !self.used_wrap,
            _ => self.next = self.next.wrapping_add(1) % self.areas.entries,
        }
    }

    /// Does all that is available, with this status. An `honest` device finds nothing in the ring but
    /// what the driver has written. `pieces` is room for those of a request.
    pub(super) fn serve(
        &mut self,
        view: &DeviceView,
        status: u8,
        honest: bool,
        pieces: &mut Vec<Piece>,
    ) {
        for _ in 0..self.areas.entries {
            pieces.clear();
            let taken = match self.packed {
                true => self.take_packed(view, pieces),
                false => self.take_split(view, pieces),
            };
            let Some((id, count)) = taken else { return };
            let bytes = fulfil(view, pieces, status, honest);
            let done = match self.packed {
                true => self.put_packed(view, id, count, bytes),
                false => self.put_split(view, id, bytes),
            };
            if done.is_none() {
                return;
            }
        }
    }

    /// The next request: its first descriptor, and how many of the ring's places it takes.
    fn take_split(&mut self, view: &DeviceView, pieces: &mut Vec<Piece>) -> Option<(u16, u16)> {
        let Areas { entries, driver, .. } = self.areas;
        let index = word(view, driver.bits() + AVAILABLE_INDEX as u64)?;
        if index == self.next {
            return None;
        }
        let place = u64::from(self.next & (entries - 1));
        let head = word(view, driver.bits() + AVAILABLE_RING as u64 + 2 * place)?;
        let table = self.areas.descriptors.bits();
        let mut at = head;
        // A loop of descriptors may be one of empty tables.
        for _ in 0..MAX_PIECES {
            let piece = piece(view, table + 16 * u64::from(at))?;
            let last = piece.flags & split::Descriptor::NEXT == 0;
            at = piece.next;
            gather(view, piece, pieces)?;
            if last || pieces.len() > MAX_PIECES {
                break;
            }
        }
        self.next = self.next.wrapping_add(1);
        Some((head, 1))
    }

    fn put_split(&mut self, view: &DeviceView, head: u16, bytes: u32) -> Option<()> {
        let Areas { entries, device, .. } = self.areas;
        let place = u64::from(self.used & (entries - 1));
        let element = u64::from(head) | u64::from(bytes) << 32;
        view.write(device.bits() + USED_RING as u64 + 8 * place, &element.to_le_bytes()).ok()?;
        self.used = self.used.wrapping_add(1);
        view.write(device.bits() + USED_INDEX as u64, &self.used.to_le_bytes()).ok()
    }

    /// The next request: its buffer ID, and how many descriptors it takes.
    fn take_packed(&mut self, view: &DeviceView, pieces: &mut Vec<Piece>) -> Option<(u16, u16)> {
        let table = self.areas.descriptors.bits();
        let mut count = 0;
        loop {
            let at = table + 16 * u64::from(self.next);
            let flags = word(view, at + packed::Descriptor::FLAGS as u64)?;
            let available = (flags & packed::Descriptor::AVAILABLE != 0) == self.wrap
                && (flags & packed::Descriptor::USED != 0) != self.wrap;
            if count == 0 && !available || count > self.areas.entries {
                return None;
            }
            let found = piece(view, at)?;
            // The places of flags and of the next one are those of the other layout, exchanged.
            let found = Piece { flags: found.next, next: found.flags, ..found };
            count += 1;
            self.next += 1;
            if self.next >= self.areas.entries {
                (self.next, self.wrap) = (0, !self.wrap);
            }
            gather(view, found, pieces)?;
            if found.flags & split::Descriptor::NEXT == 0 {
                return Some((found.next, count));
            }
        }
    }

    fn put_packed(&mut self, view: &DeviceView, id: u16, count: u16, bytes: u32) -> Option<()> {
        let at = self.areas.descriptors.bits() + 16 * u64::from(self.used);
        let both = packed::Descriptor::AVAILABLE | packed::Descriptor::USED;
        let flags = if self.used_wrap { both } else { 0 };
        let [b0, b1, b2, b3] = bytes.to_le_bytes();
        let ([i0, i1], [f0, f1]) = (id.to_le_bytes(), flags.to_le_bytes());
        view.write(at + 8, &[b0, b1, b2, b3, i0, i1, f0, f1]).ok()?;
        self.used += count;
        if self.used >= self.areas.entries {
            (self.used, self.used_wrap) = (self.used - self.areas.entries, !self.used_wrap);
        }
        Some(())
    }
}

fn word(view: &DeviceView, at: u64) -> Option<u16> {
    let mut bytes = [0; 2];
    view.read(at, &mut bytes).ok()?;
    Some(u16::from_le_bytes(bytes))
}

/// A descriptor in the split layout.
fn piece(view: &DeviceView, at: u64) -> Option<Piece> {
    let mut bytes = [0; 16];
    view.read(at, &mut bytes).ok()?;
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
    Some(Piece {
        address: u64::from_le_bytes([a, b, c, d, e, f, g, h]),
        bytes: u32::from_le_bytes([i, j, k, l]),
        flags: u16::from_le_bytes([m, n]),
        next: u16::from_le_bytes([o, p]),
    })
}

/// Adds a piece, or those of the table that it names, which lie one behind the other in both
/// layouts.
fn gather(view: &DeviceView, one: Piece, pieces: &mut Vec<Piece>) -> Option<()> {
    if one.flags & split::Descriptor::INDIRECT == 0 {
        pieces.push(one);
        return Some(());
    }
    for at in (0..u64::from(one.bytes)).step_by(16).take(MAX_PIECES) {
        pieces.push(piece(view, one.address.checked_add(at)?)?);
    }
    Some(())
}

/// Writes a frame, and what stands before it, with these flags; how many bytes were written.
fn receive(view: &DeviceView, pieces: &[Piece], status: u8) -> u32 {
    let mut frame = [0x55; FRAME_BYTES];
    // What is left to do with it: nothing, TCP over IPv4, over IPv6 with ECN, or UDP.
    let kind = [GSO_NONE, GSO_TCP4, GSO_TCP6 | GSO_ECN, GSO_UDP_L4][usize::from(status >> 2 & 3)];
    frame[..12].copy_from_slice(&[status, kind, 54, 0, 100, 0, 34, 0, 16, 0, 1, 0]);
    let mut done = 0;
    for piece in pieces {
        let bytes = (piece.bytes as usize).min(FRAME_BYTES - done);
        if view.write(piece.address, &frame[done..done + bytes]).is_err() {
            break;
        }
        done += bytes;
    }
    done as u32
}

/// Writes the status where the last piece is, if it is one byte; how many bytes were written.
fn fulfil(view: &DeviceView, pieces: &[Piece], status: u8, honest: bool) -> u32 {
    for piece in pieces.iter().filter(|_| honest) {
        let allocated = is_allocated(view, piece.address, piece.bytes.into());
        assert!(allocated, "a descriptor names memory that is not allocated");
    }
    let Some(last) = pieces.last() else { return 0 };
    if last.bytes > 1 && last.flags & split::Descriptor::WRITE != 0 {
        return receive(view, pieces, status);
    }
    let Some(last) = Some(last).filter(|last| last.bytes == 1) else { return 0 };
    match view.write(last.address, &[status]) {
        Ok(()) => 1,
        Err(_) => 0,
    }
}
