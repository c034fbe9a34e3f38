//! The drive by itself, as an HBA's model would use it.

use super::*;
use outboard_ahci::spec::atapi::Packet;
use outboard_ahci::spec::identify::Identify;

struct Bench {
    drive: AtapiDrive,
    random: Random,
    now: Instant,
}

impl Bench {
    fn new(options: AtapiOptions, disc: Option<Disc>) -> Self {
        let drive = AtapiDrive::new(options, disc);
        Self { drive, random: Random::new(1), now: Instant::from_nanos(1) }
    }

    fn with_disc() -> Self {
        let mut bench = Self::new(AtapiOptions::default(), Some(disc()));
        bench.refused(Packet::test_unit_ready());
        bench
    }

    fn command(&mut self, fis: RegisterH2d, packet: Packet) -> (Option<Protocol>, End, Vec<u8>) {
        let command = Command { fis, packet: packet.0 };
        match self.drive.plan(&command, self.now, &mut self.random) {
            Err(end) => (None, end, Vec::new()),
            Ok(plan) => {
                let mut data = vec![0; plan.bytes];
                self.now = self.now + plan.takes;
                let end = self.drive.carry_out(&command, &mut data, self.now, &mut self.random);
                (Some(plan.protocol), end, data)
            }
        }
    }

    fn packet(&mut self, packet: Packet) -> (End, Vec<u8>) {
        let (_, end, data) = self.command(RegisterH2d::command(command::PACKET), packet);
        (end, data)
    }

    fn good(&mut self, packet: Packet) -> Vec<u8> {
        let (end, data) = self.packet(packet);
        assert!(!end.is_bad(), "{packet:?}: {end:?}");
        assert_eq!((end.count, end.bytes), (REASON_ENDED.into(), data.len()));
        data
    }

    /// Sense of a packet that is refused.
    fn refused(&mut self, packet: Packet) -> Sense {
        let (end, _) = self.packet(packet);
        assert!(end.is_bad(), "{packet:?} was not refused");
        let mut data = [0; Sense::BYTES];
        let sense = self.good(Packet::request_sense());
        data[..sense.len()].copy_from_slice(&sense);
        let sense = Sense::parse(&data).unwrap();
        assert_eq!(end.error >> 4, sense.key.0);
        sense
    }

    fn event(&mut self) -> MediaEvent {
        MediaEvent::new(self.good(Packet::media_event()).first_chunk().unwrap()).unwrap()
    }
}

fn disc() -> Disc {
    Disc::new((0..100 * 2048usize).map(|byte| (byte / 2048) as u8).collect())
}

#[test]
fn a_disc_is_read_by_both_commands() {
    let mut bench = Bench::with_disc();
    let capacity = Capacity { last_lba: 99, sector_bytes: 2048 };
    assert_eq!(bench.good(Packet::read_capacity()), capacity.to_bytes());
    for packet in [Packet::read_10(7, 2), Packet::read_12(7, 2)] {
        let data = bench.good(packet);
        assert!(data[..2048].iter().all(|byte| *byte == 7));
        assert!(data[2048..].iter().all(|byte| *byte == 8) && data.len() == 4096);
    }
    let beyond = bench.refused(Packet::read_10(99, 2));
    assert_eq!((beyond.key, beyond.what()), (SenseKey::ILLEGAL_REQUEST, code::OUT_OF_RANGE));
    assert_eq!(bench.refused(Packet::read_12(u32::MAX, 2)).what(), code::OUT_OF_RANGE);
}

#[test]
fn a_bad_sector_ends_a_read_there_and_is_named() {
    let mut bench = Bench::with_disc();
    *bench.drive.disc().unwrap() = disc().with_bad(12);
    let (end, data) = bench.packet(Packet::read_10(10, 4));
    assert!(end.is_bad() && end.bytes == 2 * 2048 && data[2048] == 11);
    let sense = bench.refused(Packet::read_10(10, 4));
    let expected = Sense::new(SenseKey::MEDIUM_ERROR, code::UNRECOVERED_READ_ERROR).at(12);
    assert_eq!(sense, expected);
    bench.good(Packet::read_10(10, 2));
}

#[test]
fn attentions_are_told_once_and_not_to_those_who_only_ask() {
    let mut bench = Bench::new(AtapiOptions::default(), Some(disc()));
    assert_eq!(bench.good(Packet::inquiry(36))[0], 5);
    assert_eq!(bench.event().event, MediaEvent::NO_CHANGE);
    let sense = bench.refused(Packet::test_unit_ready());
    assert_eq!((sense.key, sense.what()), (SenseKey::UNIT_ATTENTION, code::RESET));
    bench.good(Packet::test_unit_ready());
    bench.drive.reset(Reset::Hard, bench.now);
    assert_eq!(bench.refused(Packet::read_10(0, 1)).what(), code::RESET);
    bench.good(Packet::read_10(0, 1));
}

#[test]
fn the_tray_opens_closes_and_can_be_locked() {
    let mut bench = Bench::with_disc();
    bench.good(Packet::prevent_removal());
    assert_eq!(bench.refused(Packet::eject()).what(), code::REMOVAL_PREVENTED);
    bench.drive.press_button(bench.now);
    assert!(!bench.drive.is_open());
    assert_eq!(bench.event().event, MediaEvent::EJECT_REQUEST);
    bench.good(Packet::allow_removal());
    bench.good(Packet::eject());
    assert!(bench.drive.is_open());
    assert_eq!(bench.refused(Packet::test_unit_ready()).what(), code::NO_MEDIUM_OPEN);
    let removal = MediaEvent { event: MediaEvent::MEDIA_REMOVAL, open: true, present: false };
    assert_eq!(bench.event(), removal);
    bench.drive.exchange(None);
    bench.good(Packet::load());
    assert_eq!(bench.refused(Packet::test_unit_ready()).what(), code::NO_MEDIUM_CLOSED);
}

#[test]
fn a_new_disc_is_announced_and_takes_its_time() {
    let mut bench = Bench::with_disc();
    bench.drive.press_button(bench.now);
    bench.drive.exchange(Some(Disc::new(vec![1; 2048])));
    bench.drive.press_button(bench.now);
    assert_eq!(bench.refused(Packet::test_unit_ready()).what(), code::MEDIUM_CHANGED);
    assert_eq!(bench.refused(Packet::test_unit_ready()).what(), code::BECOMING_READY);
    bench.now = bench.now + AtapiOptions::default().load;
    bench.good(Packet::test_unit_ready());
    assert_eq!(bench.good(Packet::read_10(0, 1)), [1; 2048]);
    assert_eq!(bench.event().event, MediaEvent::MEDIA_REMOVAL);
    let new = MediaEvent { event: MediaEvent::NEW_MEDIA, open: false, present: true };
    assert_eq!(bench.event(), new);
}

#[test]
fn a_medium_that_goes_before_a_read_is_carried_out_fails_it() {
    let mut bench = Bench::with_disc();
    let fis = RegisterH2d::command(command::PACKET).features(FEATURE_DMA);
    let command = Command { fis, packet: Packet::read_10(0, 1).0 };
    let plan = bench.drive.plan(&command, bench.now, &mut bench.random).unwrap();
    assert_eq!((plan.protocol, plan.bytes), (Protocol::DmaIn, 2048));
    bench.drive.press_button(bench.now);
    let mut data = [0; 2048];
    let end = bench.drive.carry_out(&command, &mut data, bench.now, &mut bench.random);
    assert!(end.is_bad() && end.bytes == 0);
}

#[test]
fn data_moves_as_the_drive_is_able_to() {
    let read = Packet::read_10(0, 1);
    for (transfer, features, protocol) in [
        (Transfer::Dma, 0, Some(Protocol::PioIn)),
        (Transfer::Dma, 1, Some(Protocol::DmaIn)),
        (Transfer::DirectedDma, 1, None),
        (Transfer::DirectedDma, 5, Some(Protocol::DmaIn)),
        (Transfer::Pio, 1, None),
        (Transfer::Pio, 0, Some(Protocol::PioIn)),
    ] {
        let options = AtapiOptions { transfer, ..AtapiOptions::default() };
        let mut bench = Bench::new(options, Some(disc()));
        bench.refused(Packet::test_unit_ready());
        let fis = RegisterH2d::command(command::PACKET).features(features);
        let (found, end, _) = bench.command(fis, read);
        assert_eq!((found, end.is_bad()), (protocol, protocol.is_none()), "{transfer:?}");
    }
}

#[test]
fn it_says_what_it_is_and_that_it_is_no_disk() {
    let options = AtapiOptions { notification: true, ..AtapiOptions::default() };
    let mut bench = Bench::new(options, None);
    let identify = RegisterH2d::command(command::IDENTIFY_PACKET_DEVICE);
    let (protocol, end, data) = bench.command(identify, Packet([0; 16]));
    assert!(protocol == Some(Protocol::PioIn) && !end.is_bad());
    let identify = Identify::new(data.first_chunk().unwrap()).unwrap();
    assert_eq!((identify.packet_set(), identify.packet_bytes()), (Some(5), Some(12)));
    assert!(identify.has_packet_dma() && identify.asynchronous_notification().is_present());
    assert_eq!(identify.identity().model, "OUTBOARD DISC DRIVE");
    assert_eq!(identify.identity().serial, "DRIVE1");
    let disk = RegisterH2d::command(command::IDENTIFY_DEVICE);
    let (_, end, _) = bench.command(disk, Packet([0; 16]));
    assert_eq!((end.error, end.lba, end.count), (4, 0xeb_1401, 1));
    let reset = RegisterH2d::command(command::DEVICE_RESET);
    let (_, end, _) = bench.command(reset, Packet([0; 16]));
    assert_eq!((end.status, end.error, end.lba, end.count), (0, 1, 0xeb_1401, 1));
}

#[test]
fn it_notifies_once_for_each_event_if_it_was_told_to() {
    let options = AtapiOptions { notification: true, ..AtapiOptions::default() };
    let mut bench = Bench::new(options, Some(disc()));
    bench.drive.press_button(bench.now);
    assert!(!bench.drive.notifies(bench.now));
    let fis = RegisterH2d::command(command::SET_FEATURES);
    let fis = fis.features(features::ENABLE_SATA).count(sata_feature::ASYNCHRONOUS_NOTIFICATION);
    assert!(!bench.command(fis, Packet([0; 16])).1.is_bad());
    bench.drive.press_button(bench.now);
    assert!(bench.drive.notifies(bench.now) && !bench.drive.notifies(bench.now));
    bench.drive.reset(Reset::Hard, bench.now);
    bench.drive.press_button(bench.now);
    assert!(!bench.drive.notifies(bench.now));
    let mut plain = Bench::with_disc();
    assert!(plain.command(fis, Packet([0; 16])).1.is_bad());
}
