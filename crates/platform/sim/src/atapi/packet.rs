//! What a drive does about each packet.

use super::AtapiDrive;
use outboard_ahci::spec::atapi::{
    Capacity, MediaEvent, PACKET_BYTES, PREVENT, Packet, SECTOR_BYTES, START, START_LOAD_EJECT,
    Sense, SenseKey, code, opcode, peripheral,
};
use outboard_hw::Instant;

/// Bytes of the standard data of INQUIRY (SPC).
const INQUIRY_BYTES: usize = 36;

impl AtapiDrive {
    /// How many bytes a packet is going to transfer, as things are now.
    pub(super) fn expected(&self, packet: &[u8; PACKET_BYTES], now: Instant) -> usize {
        if self.refusal(packet, now).is_some() {
            return 0;
        }
        let allowed = |bytes: usize, allocated: usize| bytes.min(allocated);
        match packet[0] {
            opcode::REQUEST_SENSE if self.lies.silent => 0,
            opcode::REQUEST_SENSE => {
                let bytes = self.lies.sense.as_ref().map_or(Sense::FIXED_BYTES, Vec::len);
                allowed(bytes, packet[4].into())
            }
            opcode::INQUIRY => allowed(INQUIRY_BYTES, packet[4].into()),
            opcode::READ_CAPACITY_10 => Capacity::BYTES,
            opcode::GET_EVENT_STATUS_NOTIFICATION => {
                let allocated = u16::from_be_bytes([packet[7], packet[8]]);
                allowed(self.event(packet).len(), allocated.into())
            }
            _ => self.reads(packet).map_or(0, |(_, sectors)| sectors as usize * 2048),
        }
    }

    /// First sector and number of sectors, if it is a read.
    pub(super) fn reads(&self, packet: &[u8; PACKET_BYTES]) -> Option<(u32, u32)> {
        let read = matches!(packet[0], opcode::READ_10 | opcode::READ_12);
        let packet = Packet(*packet);
        read.then(|| (packet.lba(), packet.sectors()))
    }

    /// Why a packet is refused before anything is done about it.
    fn refusal(&self, packet: &[u8; PACKET_BYTES], now: Instant) -> Option<Sense> {
        let illegal = |what| Some(Sense::new(SenseKey::ILLEGAL_REQUEST, what));
        match packet[0] {
            // These are answered whatever there is to tell (SPC, unit attention condition).
            opcode::REQUEST_SENSE | opcode::INQUIRY => return None,
            opcode::GET_EVENT_STATUS_NOTIFICATION => {
                let polled = packet[1] & 1 != 0;
                return match (self.options.events, polled) {
                    (true, true) => None,
                    (true, false) => illegal(code::INVALID_FIELD),
                    (false, _) => illegal(code::INVALID_COMMAND),
                };
            }
            _ => {}
        }
        if let Some(attention) = self.attentions.front() {
            return Some(Sense::new(SenseKey::UNIT_ATTENTION, *attention));
        }
        match packet[0] {
            opcode::READ_10 if !self.options.read_10 => illegal(code::INVALID_COMMAND),
            opcode::TEST_UNIT_READY | opcode::READ_CAPACITY_10 => self.not_ready(now),
            opcode::READ_10 | opcode::READ_12 => self.not_ready(now).or_else(|| {
                let (lba, sectors) = self.reads(packet).unwrap_or_default();
                let end = self.disc.as_ref().map_or(0, |disc| disc.sectors());
                let inside = lba.checked_add(sectors).is_some_and(|last| last <= end);
                if inside { None } else { illegal(code::OUT_OF_RANGE) }
            }),
            opcode::START_STOP_UNIT if packet[4] & START_LOAD_EJECT != 0 => {
                let ejects = packet[4] & START == 0;
                if ejects && self.locked { illegal(code::REMOVAL_PREVENTED) } else { None }
            }
            opcode::START_STOP_UNIT | opcode::PREVENT_ALLOW_MEDIUM_REMOVAL => None,
            _ => illegal(code::INVALID_COMMAND),
        }
    }

    fn not_ready(&self, now: Instant) -> Option<Sense> {
        let what = match (self.open, &self.disc) {
            (true, _) => code::NO_MEDIUM_OPEN,
            (false, None) => code::NO_MEDIUM_CLOSED,
            (false, Some(_)) if !now.reached(self.ready_at) => code::BECOMING_READY,
            (false, Some(_)) => return None,
        };
        Some(Sense::new(SenseKey::NOT_READY, what))
    }

    /// Carries a packet out, or refuses it after so many bytes.
    pub(super) fn execute(
        &mut self,
        packet: &[u8; PACKET_BYTES],
        data: &mut [u8],
        now: Instant,
    ) -> Result<(), (Sense, usize)> {
        if let Some(sense) = self.refusal(packet, now) {
            if sense.key == SenseKey::UNIT_ATTENTION {
                self.attentions.pop_front();
            }
            return Err((sense, 0));
        }
        if data.len() < self.expected(packet, now) {
            // It was going to be refused when it was planned.
            return Err((Sense::new(SenseKey::ABORTED_COMMAND, code::NONE), 0));
        }
        match packet[0] {
            opcode::REQUEST_SENSE => {
                let sense = self.take_sense();
                fill(data, &sense);
            }
            opcode::INQUIRY => fill(data, &inquiry()),
            opcode::READ_CAPACITY_10 => {
                let last_lba = self.disc.as_ref().map_or(0, |disc| disc.sectors() - 1);
                let true_one = Capacity { last_lba, sector_bytes: SECTOR_BYTES };
                fill(data, &self.lies.capacity.unwrap_or(true_one).to_bytes());
            }
            opcode::GET_EVENT_STATUS_NOTIFICATION => {
                let event = self.event(packet);
                self.events.pop_front();
                fill(data, &event);
            }
            opcode::START_STOP_UNIT if packet[4] & START_LOAD_EJECT != 0 => {
                match (packet[4] & START != 0, self.open) {
                    (true, true) => self.close(now),
                    (false, false) => self.open(),
                    (true, false) | (false, true) => {}
                }
            }
            opcode::PREVENT_ALLOW_MEDIUM_REMOVAL => self.locked = packet[4] & PREVENT != 0,
            opcode::READ_10 | opcode::READ_12 => return self.read(packet, data),
            _ => {}
        }
        Ok(())
    }

    fn read(&self, packet: &[u8; PACKET_BYTES], data: &mut [u8]) -> Result<(), (Sense, usize)> {
        let refused = Sense::new(SenseKey::MEDIUM_ERROR, code::UNRECOVERED_READ_ERROR);
        if self.lies.sense.is_some() || self.lies.silent {
            return Err((refused, 0));
        }
        let (Some((lba, _)), Some(disc)) = (self.reads(packet), &self.disc) else { return Ok(()) };
        disc.read(lba, data).map_err(|(bytes, bad)| (refused.at(bad.into()), bytes))
    }

    fn take_sense(&mut self) -> Vec<u8> {
        if let Some(lie) = &self.lies.sense {
            return lie.clone();
        }
        let sense = self.sense.take().or_else(|| {
            let attention = self.attentions.pop_front()?;
            Some(Sense::new(SenseKey::UNIT_ATTENTION, attention))
        });
        sense.unwrap_or(Sense::new(SenseKey::NO_SENSE, code::NONE)).to_fixed().to_vec()
    }

    /// The event that is next, of the media class, if that is asked for.
    fn event(&self, packet: &[u8; PACKET_BYTES]) -> Vec<u8> {
        if packet[4] & 1 << MediaEvent::CLASS == 0 {
            return MediaEvent::none().to_vec();
        }
        let event = self.events.front().copied().unwrap_or(MediaEvent::NO_CHANGE);
        let present = self.disc.is_some() && !self.open;
        MediaEvent { event, open: self.open, present }.to_bytes().to_vec()
    }
}

/// The standard data of INQUIRY: a CD drive with a removable medium (SPC).
fn inquiry() -> [u8; INQUIRY_BYTES] {
    let mut data = [b' '; INQUIRY_BYTES];
    let following = (INQUIRY_BYTES - 5) as u8;
    data[..8].copy_from_slice(&[peripheral::MULTIMEDIA, 1 << 7, 0, 0x32, following, 0, 0, 0]);
    data[8..16].copy_from_slice(b"OUTBOARD");
    data[16..26].copy_from_slice(b"DISC DRIVE");
    data[32..35].copy_from_slice(b"1.0");
    data
}

/// Copies as much as fits; the rest stays as it is.
fn fill(data: &mut [u8], from: &[u8]) {
    let bytes = data.len().min(from.len());
    data[..bytes].copy_from_slice(&from[..bytes]);
}
