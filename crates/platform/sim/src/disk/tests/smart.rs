//! SMART and logs.

use super::harness::Host;
use crate::disk::{Abilities, Defect, DiskConfig, Lies};
use crate::sata::Reset;
use core::time::Duration;
use outboard_ahci::spec::ata::{Error, command};
use outboard_ahci::spec::fis::RegisterH2d;
use outboard_ahci::spec::log::{DIRECTORY, IDENTIFY_DEVICE_DATA, NCQ_ERROR, identify_page};
use outboard_ahci::spec::smart::{
    self, Block, Data, ErrorLog, ExtendedTestLog, TestEntry, TestLog, Thresholds, address, outcome,
    subcommand, test,
};

fn host() -> Host {
    Host::new(DiskConfig::modern(8000))
}

fn command(subcommand: u16, low: u8, count: u16) -> RegisterH2d {
    let fis = RegisterH2d::command(command::SMART).features(subcommand).count(count);
    RegisterH2d { lba_low: address(low).to_le_bytes()[..3].try_into().unwrap(), ..fis }
}

fn block<T: Block>(host: &mut Host, fis: RegisterH2d) -> Option<T> {
    T::checked(&host.good(fis, &[]).try_into().unwrap())
}

fn data(host: &mut Host) -> Data {
    block(host, command(subcommand::READ_DATA, 0, 0)).unwrap()
}

fn tests(host: &mut Host) -> TestLog {
    block(host, command(subcommand::READ_LOG, smart::log::TESTS, 1)).unwrap()
}

fn newest(host: &mut Host) -> TestEntry {
    let log = tests(host);
    log.tests[usize::from(log.newest) - 1]
}

fn raw(host: &mut Host, id: u8) -> u64 {
    let data = data(host);
    data.attributes.iter().find(|attribute| attribute.id == id).unwrap().raw()
}

fn verdict(host: &mut Host) -> Option<bool> {
    let (end, _) = host.run(command(subcommand::RETURN_STATUS, 0, 0), &[]);
    assert!(!end.is_bad());
    smart::verdict(end.lba)
}

fn start(host: &mut Host, code: u8) {
    host.good(command(subcommand::EXECUTE_OFFLINE, code, 0), &[]);
}

#[test]
fn attributes_move_with_what_happens() {
    let mut host = host();
    assert_eq!((raw(&mut host, 5), raw(&mut host, 197), raw(&mut host, 12)), (0, 0, 1));
    host.disk.damage(10, Defect::Uncorrectable);
    host.read(10, 1);
    assert_eq!((raw(&mut host, 197), raw(&mut host, 187), raw(&mut host, 5)), (1, 1, 0));
    host.write(10, 1, 1);
    host.flush();
    assert_eq!((raw(&mut host, 197), raw(&mut host, 5)), (0, 1));
    host.disk.note_crc_error();
    host.disk.age(500);
    host.disk.set_temperature(55);
    host.wait(Duration::from_secs(7200));
    host.cycle_power();
    assert_eq!((raw(&mut host, 199), raw(&mut host, 194), raw(&mut host, 12)), (1, 55, 2));
    assert_eq!(raw(&mut host, 9), 502);
    let data = data(&mut host);
    let temperature = data.attributes.iter().find(|a| a.id == 190).unwrap();
    host.disk.set_temperature(30);
    assert_eq!((temperature.value, temperature.worst), (45, 45));
    let fis = command(subcommand::READ_DATA, 0, 0);
    let cooler = block::<Data>(&mut host, fis).unwrap();
    let temperature = cooler.attributes.iter().find(|a| a.id == 190).unwrap();
    assert_eq!((temperature.value, temperature.worst), (70, 45), "the worst stays");
}

#[test]
fn the_verdict_follows_the_thresholds_or_what_it_is_told() {
    let mut host = host();
    assert_eq!(verdict(&mut host), Some(false));
    host.disk.set_failing(true);
    assert_eq!(verdict(&mut host), Some(true));
    let thresholds: Thresholds =
        block(&mut host, command(subcommand::READ_THRESHOLDS, 0, 0)).unwrap();
    let data = data(&mut host);
    let below = |i: usize| data.attributes[i].value <= thresholds.thresholds[i].threshold;
    assert!(data.attributes[1].id == 5 && thresholds.thresholds[1].id == 5 && below(1));
    host.disk.set_failing(false);
    for lba in 0..90 {
        host.disk.damage(lba, Defect::Uncorrectable);
    }
    host.write(0, 89, 1);
    host.flush();
    assert_eq!(verdict(&mut host), Some(false));
    host.write(89, 1, 1);
    host.flush();
    assert_eq!(verdict(&mut host), Some(true), "ten are left of a hundred");
    host.disk.lies = Lies::SMART_VERDICT | Lies::SMART_CHECKSUM;
    assert_eq!(verdict(&mut host), None);
    assert!(block::<Data>(&mut host, command(subcommand::READ_DATA, 0, 0)).is_none());
}

#[test]
fn smart_that_is_off_or_called_without_its_key_aborts() {
    let mut host = host();
    host.good(command(subcommand::DISABLE, 0, 0), &[]);
    assert_eq!(host.word(85) & 1, 0);
    host.aborted(command(subcommand::RETURN_STATUS, 0, 0), &[]);
    host.reset(Reset::Hard);
    host.aborted(command(subcommand::READ_DATA, 0, 0), &[]);
    host.good(command(subcommand::ENABLE, 0, 0), &[]);
    assert_eq!((verdict(&mut host), host.word(85) & 1), (Some(false), 1));
    let unlocked = RegisterH2d::command(command::SMART).features(subcommand::READ_DATA);
    host.aborted(unlocked, &[]);
    let mut without = Host::new(DiskConfig::modern(10).without(Abilities::SMART));
    without.aborted(command(subcommand::ENABLE, 0, 0), &[]);
}

#[test]
fn a_self_test_takes_its_time_and_is_logged() {
    let mut host = host();
    host.disk.age(41);
    start(&mut host, test::SHORT);
    assert_eq!((data(&mut host).test_status >> 4, tests(&mut host).newest), (outcome::RUNNING, 0));
    host.wait(host.disk.config().timing.short_test / 2);
    assert_eq!(data(&mut host).test_status, outcome::RUNNING << 4 | 5);
    assert!(!host.read(0, 1).0.is_bad(), "commands are served meanwhile");
    host.wait(host.disk.config().timing.short_test / 2);
    assert_eq!(data(&mut host).test_status, outcome::PASSED << 4);
    let entry = newest(&mut host);
    assert_eq!((entry.test, entry.status, entry.hours.get()), (test::SHORT, 0, 41));
    assert_eq!(entry.lba.get(), u32::MAX);
}

#[test]
fn a_self_test_stops_at_a_bad_sector_when_it_gets_there() {
    let mut host = host();
    host.disk.damage(4000, Defect::Uncorrectable);
    start(&mut host, test::SHORT);
    host.wait(host.disk.config().timing.short_test);
    assert_eq!(data(&mut host).test_status, 0, "it does not read so far");
    start(&mut host, test::EXTENDED);
    host.wait(host.disk.config().timing.extended_test * 4 / 10);
    assert_eq!(data(&mut host).test_status >> 4, outcome::RUNNING);
    host.wait(host.disk.config().timing.extended_test * 2 / 10);
    let entry = newest(&mut host);
    assert!(outcome::FAILED.contains(&(entry.status >> 4)), "{entry:?}");
    assert_eq!((entry.test, entry.lba.get(), entry.status & 0xf), (test::EXTENDED, 4000, 4));
    let fis = RegisterH2d::command(command::READ_LOG_EXT);
    let fis = fis.lba48(smart::log::EXTENDED_TESTS.into()).count(1);
    let log: ExtendedTestLog = block(&mut host, fis).unwrap();
    assert_eq!((log.newest.get(), log.tests[1].lba), (2, [0xa0, 0x0f, 0, 0, 0, 0]));
}

#[test]
fn a_self_test_can_be_ended_by_the_host_or_a_reset() {
    let mut host = host();
    start(&mut host, test::CONVEYANCE);
    start(&mut host, test::ABORT);
    assert_eq!(newest(&mut host).status >> 4, outcome::ABORTED);
    start(&mut host, test::EXTENDED);
    host.reset(Reset::Hard);
    assert_eq!(newest(&mut host).status, outcome::INTERRUPTED << 4 | 9);
    start(&mut host, test::EXTENDED);
    host.cycle_power();
    assert_eq!((newest(&mut host).status >> 4, tests(&mut host).newest), (outcome::INTERRUPTED, 3));
    for _ in 0..17 {
        start(&mut host, test::SHORT);
        start(&mut host, test::ABORT);
    }
    assert_eq!(tests(&mut host).newest, 1, "it is a ring");
}

#[test]
fn a_captive_test_keeps_the_disk_busy_and_fails_as_a_command() {
    let mut host = host();
    start(&mut host, test::SHORT | test::CAPTIVE);
    assert!(host.took >= host.disk.config().timing.short_test);
    assert_eq!(newest(&mut host).status >> 4, outcome::PASSED);
    host.disk.damage(1, Defect::Permanent);
    let (end, _) = host.run(command(subcommand::EXECUTE_OFFLINE, 0x81, 0), &[]);
    assert_eq!((end.error, smart::verdict(end.lba)), (Error::ABORTED.bits(), Some(true)));
    host.aborted(command(subcommand::EXECUTE_OFFLINE, 0x40, 0), &[]);
}

#[test]
fn errors_are_logged_in_a_ring_and_aborted_commands_are_not() {
    let mut host = host();
    let fis = command(subcommand::READ_LOG, smart::log::ERRORS, 1);
    assert_eq!(block::<ErrorLog>(&mut host, fis).unwrap().newest, 0);
    host.aborted(RegisterH2d::command(0xfe), &[]);
    for lba in 100..106 {
        host.disk.damage(lba, Defect::Uncorrectable);
        host.read(lba - 1, 4);
    }
    // Each of them was read into by the one before it.
    let log: ErrorLog = block(&mut host, fis).unwrap();
    assert_eq!((log.count.get(), log.newest), (6, 1));
    let entry = log.errors[0];
    assert_eq!((entry.error, entry.status), (0x40, 0x51));
    assert_eq!((entry.commands[4].command, entry.lba()), (command::READ_DMA_EXT, 104));
}

#[test]
fn the_directory_says_which_logs_there_are() {
    let mut host = host();
    let read = |log: u8| RegisterH2d::command(command::READ_LOG_EXT).lba48(log.into()).count(1);
    let directory = host.good(read(DIRECTORY), &[]);
    let pages = |log: u8| {
        let at = usize::from(log) * 2;
        u16::from_le_bytes([directory[at], directory[at + 1]])
    };
    assert_eq!((pages(0), pages(NCQ_ERROR), pages(IDENTIFY_DEVICE_DATA)), (1, 1, 9));
    for log in (0..=255).filter(|log| pages(*log) == 0) {
        host.aborted(read(log), &[]);
    }
    let by_dma = RegisterH2d { command: command::READ_LOG_DMA_EXT, ..read(DIRECTORY) };
    assert_eq!(host.good(by_dma, &[]), directory);
    host.aborted(read(IDENTIFY_DEVICE_DATA).count(10), &[]);
}

#[test]
fn the_identify_device_data_log_agrees_with_the_identification() {
    let mut host = host();
    let read = |page: u16| {
        let lba = u64::from(IDENTIFY_DEVICE_DATA) | u64::from(page) << 8;
        RegisterH2d::command(command::READ_LOG_EXT).lba48(lba).count(1)
    };
    assert_eq!(host.good(read(identify_page::COPY), &[]), host.identify());
    let supported = host.good(read(identify_page::SUPPORTED), &[]);
    assert_eq!(supported[8..13], [4, 0, 1, 2, 8]);
    let capacity = host.good(read(identify_page::CAPACITY), &[]);
    assert_eq!(capacity[8..16], (1u64 << 63 | 8000).to_le_bytes());
    let serial = host.good(read(identify_page::SERIAL_ATA), &[]);
    assert_eq!((serial[2], serial[48], serial[49], serial[55]), (8, 10, 20, 0x80));
}
