//! A queue of frames on their way out.

use super::header::describe;
use crate::queue::{Full, Piece, Queue, Used};
use crate::spec::net::Header;
use crate::spec::split::Descriptor;
use alloc::vec::Vec;
use outboard_hw::Instant;
use outboard_hw::dma::{Constraints, DeviceAddress, DmaBuffer, DmaError, DmaSpace, Segment};
use outboard_net::{Completion, Frame, NetError, Sent, Tag};

/// Where a slot's table of descriptors is, behind what stands before the frame.
const TABLE: usize = 16;

/// How frames are laid out for the device.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Bytes of what stands before a frame.
    pub(super) header_bytes: usize,
    /// Whether that may share a descriptor with the frame.
    pub(super) shares_descriptor: bool,
    /// Whether descriptors may be in a table.
    pub(super) indirect: bool,
    /// The most segments of a frame.
    pub(super) segments: u16,
}

/// A frame on its way out.
#[derive(Debug)]
struct Sending {
    tag: Tag,
    data: outboard_hw::dma::SgList,
}

/// The queue, and what is in it.
#[derive(Debug)]
pub(super) struct Transmit {
    number: u16,
    pub(super) queue: Queue,
    layout: Layout,
    /// Headers and tables, by slot.
    memory: DmaBuffer,
    stride: usize,
    slots: Vec<Option<Sending>>,
    free: Vec<u16>,
    /// Since when the device has not sent anything of what it has.
    pub(super) since: Option<Instant>,
    /// Whether an interrupt comes when the next frame was sent.
    listens: bool,
}

impl Transmit {
    pub(super) fn new(
        dma: &dyn DmaSpace,
        number: u16,
        queue: Queue,
        layout: Layout,
    ) -> Result<Self, DmaError> {
        let count = queue.areas().entries;
        let stride = TABLE + Descriptor::BYTES * (usize::from(layout.segments) + 1);
        let memory = dma.allocate(stride * usize::from(count), &Constraints::NONE.aligned(16))?;
        Ok(Self {
            number,
            queue,
            layout,
            memory,
            stride,
            slots: (0..count).map(|_| None).collect(),
            free: (0..count).rev().collect(),
            since: None,
            listens: false,
        })
    }

    /// Frames that it has.
    #[inline]
    pub(super) const fn held(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Takes a frame that was checked, which the device sees once that is published.
    #[inline]
    pub(super) fn put(
        &mut self,
        tag: Tag,
        mut frame: Frame,
        limits: &Constraints,
    ) -> Result<(), Frame> {
        let Some(slot) = self.free.last().copied() else { return Err(frame) };
        let header = if frame.work.is_none() { Header::default() } else { describe(&frame.work) };
        let bytes = self.layout.header_bytes;
        let added = match frame.data.single_segment() {
            Some(Segment { bytes: frame_bytes, .. }) if self.layout.shares_descriptor => {
                match frame.data.first_buffer_mut() {
                    Some((buffer, start)) if start >= bytes => {
                        let start = start - bytes;
                        write_header(buffer, start, bytes, &header);
                        let whole = bytes + frame_bytes as usize;
                        buffer.sync_for_device(start..start + whole);
                        let address = buffer.address_of(start);
                        let segment = Segment { address, bytes: whole as u64 };
                        let piece = Piece { segment, writable: false };
                        self.queue.add(slot, 1, core::iter::once(piece))
                    }
                    _ => self.add_apart(slot, &header, &frame, limits),
                }
            }
            _ => self.add_apart(slot, &header, &frame, limits),
        };
        if added.is_err() {
            return Err(frame);
        }
        self.free.pop();
        self.slots[usize::from(slot)] = Some(Sending { tag, data: frame.data });
        Ok(())
    }

    /// Adds a frame whose header is in the slot's memory.
    fn add_apart(
        &mut self,
        slot: u16,
        header: &Header,
        frame: &Frame,
        limits: &Constraints,
    ) -> Result<(), Full> {
        frame.data.sync_for_device();
        let at = self.stride * usize::from(slot);
        let bytes = self.layout.header_bytes;
        write_header(&mut self.memory, at, bytes, header);
        let header = Segment { address: self.memory.address_of(at), bytes: bytes as u64 };
        if let Some(segment) = frame.data.single_segment() {
            return self.queue.add(slot, 2, read(header, core::iter::once(segment)));
        }
        let data = || frame.data.segments(limits);
        let count = 1 + data().count();
        if !self.layout.indirect || count <= 2 {
            return self.queue.add(slot, count as u16, read(header, data()));
        }
        if self.queue.free() == 0 {
            return Err(Full);
        }
        let at = at + TABLE;
        let table: DeviceAddress = self.memory.address_of(at);
        let (count, _) = self.queue.write_table(&mut self.memory, at, read(header, data()));
        self.queue.add_table(slot, table, count, 0)
    }

    /// Asks for an interrupt if hardly any room is left; whether something was sent already.
    #[inline]
    pub(super) fn listen_if_full(&mut self) -> bool {
        if self.queue.free() > self.queue.areas().entries / 4 {
            return false;
        }
        self.listens = true;
        self.queue.listen()
    }

    /// Asks for no interrupts.
    pub(super) fn ignore(&mut self) {
        self.listens = false;
        self.queue.ignore();
    }

    /// Asks for none once there is room again.
    pub(super) fn ignore_if_roomy(&mut self) {
        if self.listens && self.queue.free() > self.queue.areas().entries / 2 {
            self.ignore();
        }
    }

    /// Gives a frame back that was sent; how many bytes it has.
    #[inline]
    pub(super) fn sent(&mut self, used: Used, done: &mut dyn FnMut(Completion)) -> usize {
        self.end(used.token, Ok(()), done).unwrap_or(0)
    }

    #[inline]
    fn end(
        &mut self,
        slot: u16,
        result: Result<(), NetError>,
        done: &mut dyn FnMut(Completion),
    ) -> Option<usize> {
        let Sending { tag, data } = self.slots.get_mut(usize::from(slot))?.take()?;
        self.free.push(slot);
        let bytes = data.bytes();
        done(Completion::Sent(Sent { queue: self.number, tag, result, data }));
        Some(bytes)
    }

    /// Gives all frames back that the device had, which reaches none of them any more; how many.
    pub(super) fn lose(&mut self, done: &mut dyn FnMut(Completion)) -> u64 {
        let slots = 0..self.slots.len() as u16;
        (self.since, self.listens) = (None, false);
        slots.filter_map(|slot| self.end(slot, Err(NetError::Lost), done)).count() as u64
    }
}

/// The pieces of a frame behind its header.
fn read(header: Segment, data: impl Iterator<Item = Segment>) -> impl Iterator<Item = Piece> {
    core::iter::once(header).chain(data).map(|segment| Piece { segment, writable: false })
}

/// Writes what stands before a frame, of which legacy devices may have less.
#[inline]
fn write_header(buffer: &mut DmaBuffer, at: usize, bytes: usize, header: &Header) {
    if bytes == Header::BYTES {
        buffer.write(at, header);
    } else {
        buffer.write_bytes(at, &zerocopy::IntoBytes::as_bytes(header)[..bytes]);
    }
}
