//! The driver against the simulator's drive for discs, in virtual time.

mod support;

use outboard_ahci::spec::atapi::{Capacity, Sense, SenseKey, code};
use outboard_block::{BlockDriver, BlockError, Management, RefusedReason, Request, Tag, UnitState};
use outboard_sim::atapi::{AtapiDrive, AtapiOptions, Disc, Lies, Transfer};
use outboard_sim::fault::Cost;
use outboard_sim::{Fault, Random};
use std::collections::BTreeMap;
use std::time::Duration;
use support::disc_bench::{DiscBench, content, disc, sectors_of};

const SECTORS: u64 = 500;

fn with_disc() -> DiscBench {
    DiscBench::new(AtapiOptions::default(), Some(disc(0, SECTORS)))
}

fn lying(lies: Lies) -> DiscBench {
    let mut drive = AtapiDrive::new(AtapiOptions::default(), Some(disc(0, SECTORS)));
    drive.lies = lies;
    DiscBench::starting(drive)
}

#[test]
fn a_disc_is_read_whichever_way_the_drive_transfers() {
    for transfer in [Transfer::Dma, Transfer::DirectedDma, Transfer::Pio] {
        for read_10 in [true, false] {
            let options = AtapiOptions { transfer, read_10, ..AtapiOptions::default() };
            let mut bench = DiscBench::new(options, Some(disc(0, SECTORS)));
            assert_eq!((bench.unit().state, bench.unit().generation), (UnitState::Ready, 1));
            assert_eq!(bench.unit().geometry.sectors, SECTORS);
            assert!(bench.unit().geometry.read_only && bench.unit().features.removable);
            assert_eq!(bench.read(3, 64).unwrap(), sectors_of(3, 64));
            assert_eq!(bench.read(SECTORS - 1, 1).unwrap(), sectors_of(SECTORS - 1, 1));
            let beyond = bench.request(SECTORS, 1);
            let refused = bench.refused(beyond);
            assert_eq!(refused.reason, RefusedReason::OutOfRange { sectors: SECTORS });
        }
    }
}

#[test]
fn a_bad_sector_is_named_and_its_neighbours_are_read() {
    let mut bench = DiscBench::new(AtapiOptions::default(), Some(disc(0, SECTORS).with_bad(42)));
    for lba in 0..16 {
        bench.submit_read(lba * 4, 4);
    }
    for completion in bench.finish() {
        let lba = completion.tag.0;
        match lba {
            40 => assert_eq!(completion.result, Err(BlockError::Media { lba: Some(42) })),
            _ => assert_eq!(content(completion).unwrap(), sectors_of(lba, 4)),
        }
    }
    assert_eq!(bench.happened("sense 3/11/00"), 1, "it was not tried again");
    assert_eq!(bench.happened("port reset"), 0, "{:#?}", bench.events);
}

#[test]
fn a_tray_that_opens_in_the_middle_fails_what_was_not_read_yet() {
    let mut bench = with_disc();
    for lba in 0..20 {
        bench.submit_read(lba, 1);
    }
    bench.driver.kick(bench.now);
    bench.run_until(|bench| bench.done.len() == 5);
    bench.press_button();
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
    bench.becomes(UnitState::Empty);
    assert_eq!((bench.unit().generation, bench.unit().geometry.sectors), (2, 0));
    let refused = bench.refused(bench.request(0, 1));
    assert_eq!(refused.reason, RefusedReason::NotReady(UnitState::Empty));
}

#[test]
fn another_disc_is_another_generation_whoever_notices_it() {
    for (events, notification) in [(true, true), (true, false), (false, false)] {
        let options = AtapiOptions { events, notification, ..AtapiOptions::default() };
        let mut bench = DiscBench::new(options, Some(disc(0, SECTORS)));
        // An idle drive is watched.
        bench.press_button();
        bench.becomes(UnitState::Empty);
        bench.drive(|drive| drive.exchange(Some(disc(1000, 77))));
        bench.press_button();
        bench.becomes(UnitState::Ready);
        assert_eq!((bench.unit().generation, bench.unit().geometry.sectors), (3, 77));
        assert_eq!(bench.read(7, 2).unwrap(), sectors_of(1007, 2));
        bench.device.hba().trace().start();
        let later = bench.now + Duration::from_secs(10);
        bench.run_until(|bench| bench.now.reached(later));
        let trace = bench.device.hba().trace().take();
        let asked = trace.iter().any(|line| line.contains("command 0xa0"));
        assert_eq!(asked, !notification, "who is told need not ask");
    }
}

#[test]
fn reads_for_the_disc_before_fail_though_the_new_one_is_as_large() {
    let mut bench = with_disc();
    bench.press_button();
    bench.drive(|drive| drive.exchange(Some(disc(1000, SECTORS))));
    bench.press_button();
    assert_eq!(bench.unit().state, UnitState::Ready, "nobody has noticed yet");
    for lba in 0..4 {
        bench.submit_read(lba, 1);
    }
    for completion in bench.finish() {
        assert_eq!(completion.result, Err(BlockError::MediumChanged));
    }
    bench.becomes(UnitState::Ready);
    assert_eq!(bench.unit().generation, 2);
    assert_eq!(bench.read(0, 1).unwrap(), sectors_of(1000, 1));
}

#[test]
fn a_disc_that_is_becoming_ready_is_waited_for_but_not_for_ever() {
    let options = AtapiOptions { load: Duration::from_secs(12), ..AtapiOptions::default() };
    let mut patient = DiscBench::new(options, None);
    assert_eq!(patient.unit().state, UnitState::Empty);
    patient.manage(Management::Eject).unwrap();
    patient.drive(|drive| drive.exchange(Some(disc(0, SECTORS))));
    let began = patient.now;
    patient.manage(Management::Load).unwrap();
    patient.becomes(UnitState::Ready);
    let took = patient.now.since(began);
    assert!((Duration::from_secs(12)..Duration::from_secs(13)).contains(&took), "{took:?}");
    assert_eq!(patient.read(1, 1).unwrap(), sectors_of(1, 1));

    let options = AtapiOptions { load: Duration::from_secs(1_000_000), ..AtapiOptions::default() };
    let mut bench = DiscBench::new(options, Some(disc(0, SECTORS)));
    bench.press_button();
    bench.press_button();
    bench.submit_read(0, 1);
    let began = bench.now;
    assert_eq!(bench.finish().pop().unwrap().result, Err(BlockError::MediumChanged));
    bench.becomes(UnitState::Empty);
    assert!(bench.now.since(began) < Duration::from_secs(40));
}

#[test]
fn a_locked_tray_is_not_opened_by_a_request() {
    let mut bench = with_disc();
    bench.manage(Management::LockMedium(true)).unwrap();
    assert_eq!(bench.manage(Management::Eject), Err(BlockError::Locked));
    assert!(!bench.drive(|drive| drive.is_open()));
    bench.press_button();
    assert_eq!(bench.read(0, 1).unwrap(), sectors_of(0, 1));
    bench.manage(Management::LockMedium(false)).unwrap();
    bench.manage(Management::Eject).unwrap();
    bench.becomes(UnitState::Empty);
    assert!(bench.drive(|drive| drive.is_open()));
    let other = bench.refused(Request::manage(Management::FreezeSecurity));
    assert_eq!(other.reason, RefusedReason::Unsupported);
}

#[test]
fn a_flush_ends_in_its_turn_and_is_not_sent() {
    let mut bench = with_disc();
    bench.submit_read(3, 1);
    bench.submit(99, Request::flush());
    let done = bench.finish();
    assert_eq!((done[0].tag, done[1].tag), (Tag(3), Tag(99)));
    assert!(done.iter().all(|completion| completion.result.is_ok()));
    assert_eq!(bench.one(Request::flush()), Ok(()));
}

#[test]
fn reads_go_on_after_the_link_was_lost_for_the_same_disc_only() {
    // Not exchanged, exchanged before the reset, exchanged unseen while it lasts.
    for (seen, unseen) in [(false, false), (true, false), (false, true)] {
        let exchanged = seen || unseen;
        let mut bench = with_disc();
        (0..4).for_each(|lba| bench.submit_read(lba, 1));
        bench.driver.kick(bench.now);
        bench.turn();
        if seen {
            bench.press_button();
            bench.drive(|drive| drive.exchange(Some(disc(1000, SECTORS))));
            bench.press_button();
        }
        if unseen {
            bench.drive(|drive| drive.exchange_in_reset(disc(1000, SECTORS)));
        }
        bench.inject(Fault::LinkLost);
        for completion in bench.finish() {
            match exchanged {
                true => assert_eq!(completion.result, Err(BlockError::MediumChanged)),
                false => {
                    let lba = completion.tag.0;
                    assert_eq!(content(completion).unwrap(), sectors_of(lba, 1));
                }
            }
        }
        assert!(bench.happened("port reset") > 0, "{:#?}", bench.events);
        bench.becomes(UnitState::Ready);
        assert_eq!(bench.unit().generation, 1 + u32::from(exchanged));
        assert_eq!(bench.read(9, 1).unwrap(), sectors_of(if exchanged { 1009 } else { 9 }, 1));
    }
}

/// Resets the drive, and says whether its disc is taken for another one then.
fn is_another_after_a_reset(bench: &mut DiscBench) -> bool {
    let (generation, resets) = (bench.unit().generation, bench.happened("port reset"));
    bench.inject(Fault::LinkLost);
    bench.run_until(|bench| {
        bench.happened("port reset") > resets && bench.unit().state == UnitState::Ready
    });
    bench.unit().generation != generation
}

#[test]
fn a_disc_is_the_same_after_a_reset_only_if_that_is_proved() {
    let mut scratched =
        DiscBench::new(AtapiOptions::default(), Some(disc(0, SECTORS).with_bad(0).with_bad(16)));
    assert!(!is_another_after_a_reset(&mut scratched), "what never could be read is not missed");
    scratched.drive(|drive| {
        let disc = drive.disc().unwrap();
        *disc = disc.clone().with_bad(32);
    });
    assert!(is_another_after_a_reset(&mut scratched), "it could be read before");
    assert!(!is_another_after_a_reset(&mut scratched));

    let blank = || Disc::new(vec![0; 500 * 2048]);
    let mut bench = DiscBench::new(AtapiOptions::default(), Some(blank()));
    assert!(is_another_after_a_reset(&mut bench), "nothing is written where it was looked at");

    // Short discs have fewer places.
    let mut short = DiscBench::new(AtapiOptions::default(), Some(disc(0, 1)));
    assert!(!is_another_after_a_reset(&mut short));
    short.drive(|drive| drive.exchange_in_reset(disc(7, 1)));
    assert!(is_another_after_a_reset(&mut short));
}

#[test]
fn a_drive_that_hangs_over_what_its_disc_is_known_by_is_of_use_all_the_same() {
    let mut bench = lying(Lies { hangs_at: Some(16), ..Lies::default() });
    bench.becomes(UnitState::Ready);
    assert_eq!(bench.unit().generation, 1);
    for _ in 0..3 {
        assert_eq!(bench.read(20, 64).unwrap(), sectors_of(20, 64));
        assert!(is_another_after_a_reset(&mut bench), "its disc is not known by anything");
    }
    assert_eq!(bench.happened("HBA reset"), 0, "{:#?}", bench.events);
}

#[test]
fn whatever_goes_wrong_reads_end_and_give_what_is_on_the_disc() {
    for fault in Fault::ALL {
        let mut bench = with_disc();
        (0..8).for_each(|lba| bench.submit_read(lba * 3, 2));
        bench.driver.kick(bench.now);
        bench.run_until(|bench| bench.done.len() == 2);
        bench.inject(*fault);
        for completion in bench.finish() {
            let lba = completion.tag.0;
            if let Ok(content) = content(completion) {
                assert_eq!(content, sectors_of(lba, 2), "{fault}");
            }
        }
        // Those that strike later find something to strike.
        if bench.device.hba().device(0).is_some() {
            bench.press_button();
            bench.press_button();
        }
        let settled = |bench: &DiscBench| {
            let state = bench.unit().state;
            let over = matches!(state, UnitState::Failed(_) | UnitState::Absent);
            (over || state == UnitState::Ready) && bench.unit().generation > 1
        };
        bench.run_until(settled);
        if bench.unit().state == UnitState::Ready {
            let read = bench.read(7, 3);
            let gone = matches!(bench.unit().state, UnitState::Failed(_));
            assert!(gone || read == Ok(sectors_of(7, 3)), "{fault}: {read:?} {:#?}", bench.events);
        }
    }
}

#[test]
fn whatever_goes_wrong_at_the_start_the_drive_is_of_use_or_given_up() {
    for fault in Fault::ALL {
        let drive = AtapiDrive::new(AtapiOptions::default(), Some(disc(0, SECTORS)));
        let mut bench = DiscBench::starting(drive);
        bench.turn();
        bench.inject(*fault);
        let settled = |bench: &DiscBench| {
            let state = bench.unit().state;
            !matches!(state, UnitState::Starting | UnitState::Recovering)
        };
        bench.run_until(settled);
        if bench.unit().state == UnitState::Ready {
            assert_eq!(bench.read(7, 3), Ok(sectors_of(7, 3)), "{fault}: {:#?}", bench.events);
        }
        let lost = bench.unit().state != UnitState::Ready;
        let may_be_lost = matches!(fault.cost(), Cost::Disk | Cost::Controller);
        assert!(!lost || may_be_lost, "{fault}: {:#?}", bench.events);
    }
}

#[test]
fn a_capacity_that_makes_no_sense_is_no_medium() {
    for (last_lba, sector_bytes) in
        [(u32::MAX, 2048), (u32::MAX, u32::MAX), (99, 1), (99, 512), (99, 1 << 31), (u32::MAX, 0)]
    {
        let capacity = Some(Capacity { last_lba, sector_bytes });
        let mut bench = lying(Lies { capacity, ..Lies::default() });
        bench.becomes(UnitState::Empty);
        assert_eq!(bench.happened("of no use"), 1, "{:#?}", bench.events);
    }
    // A size of 0 is taken for 2048, and what the disc does not have is refused by the drive.
    let capacity = Some(Capacity { last_lba: u32::MAX - 1, sector_bytes: 0 });
    let mut bench = lying(Lies { capacity, ..Lies::default() });
    bench.becomes(UnitState::Ready);
    assert_eq!(bench.read(u64::from(u32::MAX) - 64, 64), Err(BlockError::Aborted));
    assert_eq!(bench.read(0, 1).unwrap(), sectors_of(0, 1));
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
        for _ in 0..3 {
            let mut lie: Vec<u8> = (0..18).map(|_| random.bits() as u8).collect();
            (lie[0], lie[2]) = (0x70 | lie[0] & 0x83, key);
            lies.push(lie);
        }
    }
    for lie in lies {
        let mut bench = with_disc();
        bench.drive(|drive| drive.lies.sense = Some(lie.clone()));
        for lba in 0..3 {
            bench.submit_read(lba, 2);
        }
        for completion in bench.finish() {
            let error = completion.result.unwrap_err();
            if let BlockError::Media { lba: Some(lba) } = error {
                assert!((completion.tag.0..completion.tag.0 + 2).contains(&lba), "{lie:02x?}");
            }
        }
        bench.drive(|drive| drive.lies = Lies::default());
        bench.becomes(UnitState::Ready);
        assert_eq!(bench.read(9, 1).unwrap(), sectors_of(9, 1), "{lie:02x?}");
    }
}

#[test]
fn a_drive_that_gives_no_sense_is_not_asked_for_ever() {
    let mut bench = with_disc();
    bench.drive(|drive| drive.lies.silent = true);
    assert_eq!(bench.read(0, 1), Err(BlockError::Aborted));
}

/// People play with the tray while faults strike, and exchange discs while the drive is reset;
/// what is read in one generation is from one disc, and every read ends.
#[test]
fn no_read_gives_what_is_on_another_disc() {
    let harmless: Vec<_> = Fault::ALL
        .iter()
        .filter(|fault| !Fault::OF_MULTIPLIERS.contains(fault))
        .filter(|fault| !matches!(fault.cost(), Cost::Disk | Cost::Controller))
        .collect();
    let (mut good, mut changed) = (0, 0);
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let options = AtapiOptions {
            events: random.once_in(2),
            notification: random.once_in(2),
            load: Duration::from_millis(random.below(4000)),
            ..AtapiOptions::default()
        };
        let mut bench = DiscBench::new(options, Some(disc(0, SECTORS)));
        // Where the newest disc begins; each has sectors that no other has.
        let mut newest = 0;
        let mut asked = Vec::new();
        for _ in 0..150 {
            match random.below(13) {
                0..4 if bench.unit().state == UnitState::Ready && asked.len() < 20 => {
                    let (lba, sectors) = (random.below(SECTORS - 8), random.between(1, 8));
                    let request = bench.request(lba, sectors);
                    bench.submit(asked.len() as u64, request);
                    asked.push((bench.unit().generation, lba, sectors));
                }
                4 => bench.press_button(),
                // Somebody is quick: the driver has no chance to see the tray open.
                5 => {
                    newest += DISTANCE;
                    if !bench.drive(|drive| drive.is_open()) {
                        bench.press_button();
                    }
                    bench.drive(|drive| drive.exchange(Some(disc(newest, SECTORS))));
                    bench.press_button();
                }
                6 => bench.inject(**random.pick(&harmless)),
                7 => {
                    newest += DISTANCE;
                    bench.drive(|drive| drive.exchange_in_reset(disc(newest, SECTORS)));
                    bench.inject(*random.pick(&RESETTING));
                }
                _ => {
                    bench.driver.kick(bench.now);
                    let end = bench.now + Duration::from_micros(random.below(3_000_000));
                    bench.run_until(|bench| bench.now.reached(end));
                }
            }
        }
        // The disc of each generation, as the first read of it says.
        let mut discs = BTreeMap::new();
        for completion in bench.finish() {
            let (generation, lba, sectors) = asked[completion.tag.0 as usize];
            changed += u32::from(completion.result == Err(BlockError::MediumChanged));
            let Ok(content) = content(completion) else { continue };
            good += 1;
            let first = *discs.entry(generation).or_insert_with(|| first_of(&content, lba));
            let events = &bench.events;
            assert_eq!(content, sectors_of(first + lba, sectors), "seed {seed}: {events:#?}");
        }
        assert!(discs.values().is_sorted(), "seed {seed}: an old disc is back: {discs:?}");
    }
    assert!(good > 500 && changed > 500, "{good} good, {changed} for another disc");
}

/// What makes the driver reset the drive, or the drive start anew by itself.
const RESETTING: [Fault; 6] = [
    Fault::LinkLost,
    Fault::FirmwareRestart,
    Fault::BrownOut,
    Fault::PowerCut,
    Fault::InterfaceFatal,
    Fault::NeverEnds,
];
/// From the first sector of one disc to that of the next.
const DISTANCE: u64 = 1000;

/// The first sector of the disc that `content` was read from, at `lba`.
fn first_of(content: &[u8], lba: u64) -> u64 {
    let sector = u64::from_le_bytes(*content.first_chunk().unwrap()) / 2048;
    sector.checked_sub(lba).expect("no disc has this there")
}
