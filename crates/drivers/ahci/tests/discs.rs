//! The driver against the model of a drive for discs, in virtual time.

mod support;

use outboard_ahci::spec::atapi::{Capacity, Sense, SenseKey, code};
use outboard_block::{
    BlockDriver, BlockError, Completion, Management, RefusedReason, Request, Tag, Unit, UnitId,
    UnitState,
};
use outboard_hw::dma::{Constraints, SgList};
use outboard_sim::Random;
use outboard_sim::atapi::{AtapiDrive, AtapiOptions, Disc, Lies, Transfer};
use std::time::Duration;
use support::model::ModelDevice;
use support::model_bench::ModelBench;
use support::pattern;

const UNIT: UnitId = UnitId(0);
const SECTORS: u64 = 500;

/// A disc whose every 8 bytes hold their own offset, from `lba` on.
fn disc(lba: u64, sectors: u64) -> Disc {
    Disc::new(pattern(lba * 4, sectors * 4))
}

fn starting(options: AtapiOptions, disc: Option<Disc>) -> ModelBench {
    let device = ModelDevice::new(vec![None]);
    device.model().ports[0].drive = Some(AtapiDrive::new(options, disc));
    let capabilities = device.model().capabilities;
    device.model().capabilities = capabilities.with_notification(true);
    ModelBench::starting(device)
}

fn bench(options: AtapiOptions, disc: Option<Disc>) -> ModelBench {
    let mut bench = starting(options, disc);
    bench.run_until(|bench| unit(bench).state != UnitState::Starting);
    bench
}

fn with_disc() -> ModelBench {
    bench(AtapiOptions::default(), Some(disc(0, SECTORS)))
}

fn unit(bench: &ModelBench) -> &Unit {
    bench.driver.unit(UNIT).unwrap()
}

/// Does something to the drive.
fn drive<T>(bench: &ModelBench, act: impl FnOnce(&mut AtapiDrive) -> T) -> T {
    act(bench.device.model().ports[0].drive.as_mut().unwrap())
}

fn press_button(bench: &ModelBench) {
    let now = bench.now;
    drive(bench, |drive| drive.press_button(now));
}

fn request(bench: &ModelBench, lba: u64, sectors: u64) -> Request {
    let bytes = sectors as usize * 2048;
    let buffer = bench.driver.dma().allocate(bytes, &Constraints::NONE.aligned(2)).unwrap();
    Request::read(lba, sectors, SgList::single(buffer, 0..bytes))
}

fn submit(bench: &mut ModelBench, lba: u64, sectors: u64) {
    let request = request(bench, lba, sectors);
    bench.driver.submit(UNIT, Tag(lba), request).unwrap();
    bench.submitted += 1;
}

fn one(bench: &mut ModelBench, request: Request) -> Result<(), BlockError> {
    bench.driver.submit(UNIT, Tag(0), request).unwrap();
    bench.submitted += 1;
    bench.finish().pop().unwrap().result
}

fn read(bench: &mut ModelBench, lba: u64, sectors: u64) -> Result<Vec<u8>, BlockError> {
    submit(bench, lba, sectors);
    content(bench.finish().pop().unwrap())
}

fn content(completion: Completion) -> Result<Vec<u8>, BlockError> {
    completion.result?;
    let mut content = vec![0; completion.data.bytes()];
    completion.data.into_buffers().next().unwrap().read_bytes(0, &mut content);
    Ok(content)
}

fn manage(bench: &mut ModelBench, what: Management) -> Result<(), BlockError> {
    one(bench, Request::manage(what))
}

#[test]
fn a_disc_is_read_whichever_way_the_drive_transfers() {
    for transfer in [Transfer::Dma, Transfer::DirectedDma, Transfer::Pio] {
        for read_10 in [true, false] {
            let options = AtapiOptions { transfer, read_10, ..AtapiOptions::default() };
            let mut bench = bench(options, Some(disc(0, SECTORS)));
            assert_eq!((unit(&bench).state, unit(&bench).generation), (UnitState::Ready, 1));
            assert_eq!(unit(&bench).geometry.sectors, SECTORS);
            assert!(unit(&bench).geometry.read_only && unit(&bench).features.removable);
            assert_eq!(read(&mut bench, 3, 64).unwrap(), pattern(12, 256));
            assert_eq!(read(&mut bench, SECTORS - 1, 1).unwrap(), pattern(SECTORS * 4 - 4, 4));
            let beyond = request(&bench, SECTORS, 1);
            let refused = bench.driver.submit(UNIT, Tag(0), beyond).unwrap_err();
            assert_eq!(refused.reason, RefusedReason::OutOfRange { sectors: SECTORS });
        }
    }
}

#[test]
fn a_bad_sector_is_named_and_its_neighbours_are_read() {
    let mut bench = bench(AtapiOptions::default(), Some(disc(0, SECTORS).with_bad(42)));
    for lba in 0..16 {
        submit(&mut bench, lba * 4, 4);
    }
    for completion in bench.finish() {
        let lba = completion.tag.0;
        match lba {
            40 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(42) })),
            _ => assert_eq!(content(completion).unwrap(), pattern(lba * 4, 16)),
        }
    }
    assert_eq!(bench.happened("sense 3/11/00"), 1, "it was not tried again");
    assert_eq!(bench.device.model().ports[0].resets, 0, "{:#?}", bench.events);
}

#[test]
fn a_tray_that_opens_in_the_middle_fails_what_was_not_read_yet() {
    let mut bench = with_disc();
    for lba in 0..20 {
        submit(&mut bench, lba, 1);
    }
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.done.len() == 5);
    press_button(&bench);
    let done = bench.finish();
    assert_eq!(done.len(), 20);
    let good = done.iter().filter(|completion| completion.result.is_ok()).count();
    assert!((5..20).contains(&good), "{good}");
    for completion in done {
        match completion.result {
            Ok(()) => assert!(completion.tag.0 < good as u64),
            Err(error) => assert_eq!(error, BlockError::MediumChanged),
        }
    }
    bench.run_until(|bench| unit(bench).state == UnitState::Empty);
    assert_eq!((unit(&bench).generation, unit(&bench).geometry.sectors), (2, 0));
    let refused = bench.driver.submit(UNIT, Tag(0), request(&bench, 0, 1)).unwrap_err();
    assert_eq!(refused.reason, RefusedReason::NotReady(UnitState::Empty));
}

#[test]
fn another_disc_is_another_generation_whoever_notices_it() {
    for (events, notification) in [(true, true), (true, false), (false, false)] {
        let options = AtapiOptions { events, notification, ..AtapiOptions::default() };
        let mut bench = bench(options, Some(disc(0, SECTORS)));
        // An idle drive is watched.
        press_button(&bench);
        bench.run_until(|bench| unit(bench).state == UnitState::Empty);
        drive(&bench, |drive| drive.exchange(Some(disc(1000, 77))));
        press_button(&bench);
        bench.run_until(|bench| unit(bench).state == UnitState::Ready);
        assert_eq!((unit(&bench).generation, unit(&bench).geometry.sectors), (3, 77));
        assert_eq!(read(&mut bench, 7, 2).unwrap(), pattern(1007 * 4, 8));
        let idle = bench.driver.next_deadline();
        assert_eq!(idle.is_none(), notification, "who is told need not ask");
    }
}

#[test]
fn reads_for_the_disc_before_fail_though_the_new_one_is_as_large() {
    let mut bench = with_disc();
    press_button(&bench);
    drive(&bench, |drive| drive.exchange(Some(disc(1000, SECTORS))));
    press_button(&bench);
    assert_eq!(unit(&bench).state, UnitState::Ready, "nobody has noticed yet");
    for lba in 0..4 {
        submit(&mut bench, lba, 1);
    }
    for completion in bench.finish() {
        assert_eq!(completion.result, Err(BlockError::MediumChanged));
    }
    bench.run_until(|bench| unit(bench).state == UnitState::Ready);
    assert_eq!(unit(&bench).generation, 2);
    assert_eq!(read(&mut bench, 0, 1).unwrap(), pattern(4000, 4));
}

#[test]
fn a_disc_that_is_becoming_ready_is_waited_for_but_not_for_ever() {
    let options = AtapiOptions { load: Duration::from_secs(12), ..AtapiOptions::default() };
    let mut patient = bench(options, None);
    assert_eq!(unit(&patient).state, UnitState::Empty);
    manage(&mut patient, Management::Eject).unwrap();
    drive(&patient, |drive| drive.exchange(Some(disc(0, SECTORS))));
    let began = patient.now;
    manage(&mut patient, Management::Load).unwrap();
    patient.run_until(|bench| unit(bench).state == UnitState::Ready);
    let took = patient.now.since(began);
    assert!((Duration::from_secs(12)..Duration::from_secs(13)).contains(&took), "{took:?}");
    assert_eq!(read(&mut patient, 1, 1).unwrap(), pattern(4, 4));

    let options = AtapiOptions { load: Duration::from_secs(1_000_000), ..AtapiOptions::default() };
    let mut bench = bench(options, Some(disc(0, SECTORS)));
    press_button(&bench);
    press_button(&bench);
    submit(&mut bench, 0, 1);
    let began = bench.now;
    assert_eq!(bench.finish().pop().unwrap().result, Err(BlockError::MediumChanged));
    bench.run_until(|bench| unit(bench).state == UnitState::Empty);
    assert!(bench.now.since(began) < Duration::from_secs(40));
}

#[test]
fn a_locked_tray_is_not_opened_by_a_request() {
    let mut bench = with_disc();
    manage(&mut bench, Management::LockMedium(true)).unwrap();
    assert_eq!(manage(&mut bench, Management::Eject), Err(BlockError::Locked));
    assert!(!drive(&bench, |drive| drive.is_open()));
    press_button(&bench);
    assert_eq!(read(&mut bench, 0, 1).unwrap(), pattern(0, 4));
    manage(&mut bench, Management::LockMedium(false)).unwrap();
    manage(&mut bench, Management::Eject).unwrap();
    bench.run_until(|bench| unit(bench).state == UnitState::Empty);
    assert!(drive(&bench, |drive| drive.is_open()));
    let other = bench.driver.submit(UNIT, Tag(0), Request::manage(Management::FreezeSecurity));
    assert_eq!(other.unwrap_err().reason, RefusedReason::Unsupported);
}

#[test]
fn a_flush_ends_in_its_turn_and_is_not_sent() {
    let mut bench = with_disc();
    submit(&mut bench, 3, 1);
    bench.submit_flush(0);
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.done.len() == 2);
    assert_eq!(bench.done[0].tag, Tag(3));
    assert!(bench.done.iter().all(|completion| completion.result.is_ok()));
    assert_eq!(one(&mut bench, Request::flush()), Ok(()));
}

#[test]
fn reads_go_on_after_a_reset_for_the_same_disc_only() {
    for exchanged in [false, true] {
        let mut bench = with_disc();
        for lba in 0..4 {
            submit(&mut bench, lba, 1);
        }
        bench.driver.kick(bench.now);
        if exchanged {
            press_button(&bench);
            drive(&bench, |drive| drive.exchange(Some(disc(1000, SECTORS))));
            press_button(&bench);
        }
        // The drive was cut off, and answers again.
        bench.device.model().come_back(0);
        for completion in bench.finish() {
            match exchanged {
                true => assert_eq!(completion.result, Err(BlockError::MediumChanged)),
                false => {
                    let lba = completion.tag.0;
                    assert_eq!(content(completion).unwrap(), pattern(lba * 4, 4));
                }
            }
        }
        assert!(bench.device.model().ports[0].resets > 0, "{:#?}", bench.events);
    }
}

#[test]
fn a_capacity_that_makes_no_sense_is_no_medium() {
    for (last_lba, sector_bytes) in
        [(u32::MAX, 2048), (u32::MAX, u32::MAX), (99, 1), (99, 512), (99, 1 << 31), (u32::MAX, 0)]
    {
        let mut bench = starting(AtapiOptions::default(), Some(disc(0, SECTORS)));
        let capacity = Some(Capacity { last_lba, sector_bytes });
        drive(&bench, |drive| drive.lies = Lies { capacity, ..Lies::default() });
        bench.run_until(|bench| unit(bench).state == UnitState::Empty);
        assert_eq!(bench.happened("of no use"), 1, "{:#?}", bench.events);
    }
    // A size of 0 is taken for 2048, and what the disc does not have is refused by the drive.
    let mut bench = starting(AtapiOptions::default(), Some(disc(0, SECTORS)));
    let capacity = Some(Capacity { last_lba: u32::MAX - 1, sector_bytes: 0 });
    drive(&bench, |drive| drive.lies = Lies { capacity, ..Lies::default() });
    bench.run_until(|bench| unit(bench).state == UnitState::Ready);
    assert_eq!(read(&mut bench, u64::from(u32::MAX) - 64, 64), Err(BlockError::Aborted));
    assert_eq!(read(&mut bench, 0, 1).unwrap(), pattern(0, 4));
}

#[test]
fn whatever_sense_a_drive_gives_reads_end() {
    let mut random = Random::new(3);
    let medium = Sense::new(SenseKey::MEDIUM_ERROR, code::UNRECOVERED_READ_ERROR);
    let mut lies = vec![
        vec![],
        vec![0xff; 18],
        vec![0x70],
        medium.at(u64::from(u32::MAX)).to_fixed().to_vec(),
        vec![0x72, 3, 0x11, 0, 0, 0, 0, 255, 0, 255, 0x80, 0],
    ];
    for key in 0..16 {
        for _ in 0..8 {
            let mut lie: Vec<u8> = (0..18).map(|_| random.bits() as u8).collect();
            (lie[0], lie[2]) = (0x70 | lie[0] & 0x83, key);
            lies.push(lie);
        }
    }
    for lie in lies {
        let mut bench = with_disc();
        drive(&bench, |drive| drive.lies.sense = Some(lie.clone()));
        for lba in 0..3 {
            submit(&mut bench, lba, 2);
        }
        for completion in bench.finish() {
            let error = completion.result.unwrap_err();
            if let BlockError::Media { lba: Some(lba) } = error {
                assert!((completion.tag.0..completion.tag.0 + 2).contains(&lba), "{lie:02x?}");
            }
        }
        drive(&bench, |drive| drive.lies = Lies::default());
        bench.run_until(|bench| unit(bench).state == UnitState::Ready);
        assert_eq!(read(&mut bench, 9, 1).unwrap(), pattern(36, 4), "{lie:02x?}");
    }
}

#[test]
fn a_drive_that_gives_no_sense_is_not_asked_for_ever() {
    let mut bench = with_disc();
    drive(&bench, |drive| drive.lies.silent = true);
    assert_eq!(read(&mut bench, 0, 1), Err(BlockError::Aborted));
}
