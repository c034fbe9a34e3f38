//! The tree of disks over a driver made of memory.

#[path = "../../../class/block/tests/support/memory.rs"]
mod memory;

use memory::{Memory, SECTOR, Shared};
use outboard_block::disk::Disks;
use outboard_block::manage::{
    Attribute, Features, LoggedError, Password, Power, Security, SelfTest, Switch, TestOutcome,
    TestResult, Verdict,
};
use outboard_block::{
    BlockError, FailedReason, Geometry, Health, Management, Operation, Unit, UnitState,
};
use outboard_hw::Instant;
use outboard_linux::SharedMemory;
use outboard_ninep::sd::{SdDone, SdFile, SdTree};
use outboard_ninep::server::{Access, Answer, Data, FileError, RequestId, Tree, errno};
use std::sync::{Arc, Mutex, MutexGuard};

struct Bench {
    tree: SdTree,
    shared: Arc<Mutex<Shared>>,
}

fn features() -> Features {
    let security = Security { supported: true, erase_minutes: 2, ..Security::NONE };
    Features { health: Switch::On, security, ..Features::NONE }
}

fn ready(generation: u32) -> Unit {
    let geometry =
        Geometry { sectors: 64, max_transfer_sectors: 8, queue_depth: 4, ..Geometry::NONE };
    let mut unit = Unit {
        state: UnitState::Ready,
        generation,
        geometry,
        features: features(),
        ..Unit::UNKNOWN
    };
    unit.identity.serial = "WD WX 11".try_into().unwrap();
    unit
}

const REQUEST: RequestId = RequestId { session: 1, place: 2 };
const READ: Access = Access { read: true, write: false, durable: false };
const WRITE: Access = Access { read: false, write: true, durable: false };

impl Bench {
    fn new() -> Self {
        let (_, arena) = SharedMemory::for_model("sd", 16 << 20).unwrap();
        let driver = Memory::new(vec![0; 64 * SECTOR], 4, 8, &arena).places(3);
        let shared = driver.shared();
        let mut disks = Disks::new();
        disks.add_driver(Box::new(driver), vec![], 8 << 20);
        let mut bench = Self { tree: SdTree::new(disks, 0), shared };
        bench.become_now(0, ready(1));
        bench
    }

    fn shared(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap()
    }

    fn become_now(&mut self, number: u16, unit: Unit) {
        self.shared().edits.push((number, unit));
        self.settle();
    }

    fn settle(&mut self) {
        self.tree.disks().poll(Instant::ORIGIN);
        while !self.tree.disks().is_idle() {
            self.tree.disks().poll(Instant::ORIGIN);
        }
    }

    fn open(&mut self, path: &str, access: Access) -> Result<SdFile, FileError> {
        let mut node = self.tree.root();
        for name in path.split('/') {
            node = self.tree.child(&node, name)?;
        }
        self.tree.open(&node, access)
    }

    /// What was answered, now or later.
    fn answered(&mut self, answer: Answer<impl Copy>, now: Vec<u8>) -> Result<Vec<u8>, FileError> {
        let Answer::Later(_) = answer else { return Ok(now) };
        self.settle();
        let (request, done) = self.tree.next_done().unwrap();
        assert_eq!(request, REQUEST);
        let data = match done? {
            SdDone::Text(text) => text,
            SdDone::Data(disk, data) => {
                let mut bytes = vec![0; data.len()];
                data.copy_to(&mut bytes);
                self.tree.recycle(disk, data);
                return Ok(bytes);
            }
            SdDone::Count(_) | SdDone::All => return Ok(Vec::new()),
        };
        let mut bytes = vec![0; data.size()];
        data.copy_to(&mut bytes);
        Ok(bytes)
    }

    fn read_file(
        &mut self,
        file: &mut SdFile,
        offset: u64,
        count: usize,
    ) -> Result<String, FileError> {
        let mut now = Vec::new();
        let answer = self.tree.read(file, offset, count, &mut now, REQUEST)?;
        self.answered(answer, now).map(|bytes| String::from_utf8(bytes).unwrap())
    }

    fn read(&mut self, path: &str) -> Result<String, FileError> {
        let mut file = self.open(path, READ)?;
        self.read_file(&mut file, 0, 1 << 20)
    }

    fn command(&mut self, command: &str) -> Result<(), FileError> {
        let mut file = self.open("sdC0/ctl", WRITE)?;
        let answer = self.tree.write(&mut file, 0, command.as_bytes(), REQUEST)?;
        self.answered(answer, Vec::new())?;
        // What programs do before they close a file.
        assert!(matches!(self.tree.sync(&mut file, REQUEST)?, Answer::Now(_)));
        Ok(())
    }

    /// What the disk was told last.
    fn told(&self) -> Option<(Management, String)> {
        let (what, password) = self.shared().told.pop()?;
        let password = String::from_utf8(password).unwrap();
        Some((what, password.trim_end_matches('\0').to_owned()))
    }

    fn names(&self) -> Vec<String> {
        let nodes = self.tree.children(&self.tree.root());
        nodes.iter().map(|node| self.tree.attributes(node).unwrap().name).collect()
    }
}

fn health() -> Health {
    let attribute = Attribute {
        id: 5,
        name: "Reallocated sectors",
        value: 10,
        worst: 9,
        threshold: 36,
        prefailure: true,
        raw: 777,
    };
    let test = TestResult {
        test: SelfTest::Extended,
        outcome: TestOutcome::Failed,
        left: 90,
        hours: 1000,
        lba: Some(123),
    };
    let error = LoggedError { number: 3, hours: 999, registers: (0x51, 0x40), lba: 123 };
    Health {
        verdict: Verdict::Failing,
        temperature: Some(-5),
        power_on_hours: Some(1001),
        power_cycles: None,
        attributes: [attribute].into_iter().collect(),
        running_test: Some(40),
        tests: [test].into_iter().collect(),
        errors: 3,
        last_errors: [error].into_iter().collect(),
        test_minutes: (2, 120),
    }
}

#[test]
fn health_is_asked_for_when_it_is_read_and_kept_for_the_rest_of_the_read() {
    let mut bench = Bench::new();
    bench.shared().health = health();
    let expected = "verdict failing\ntemperature -5\nhours 1001\nerrors 3\ntest-minutes 2 120\n\
                    running 40\n\
                    attribute 5 10 9 36 pre-failure failed 777 Reallocated sectors\n\
                    test long failed 90 1000 123\nerror 3 999 51 40 123\n";
    assert_eq!(bench.read("sdC0/smart").unwrap(), expected);
    assert_eq!(bench.told().unwrap().0, Management::ReadHealth);
    let mut file = bench.open("sdC0/smart", READ).unwrap();
    let mut text = bench.read_file(&mut file, 0, 10).unwrap();
    bench.shared().health = Health::default();
    bench.read("sdC0/smart").unwrap();
    while let Some(more) =
        Some(bench.read_file(&mut file, text.len() as u64, 9).unwrap()).filter(|m| !m.is_empty())
    {
        text.push_str(&more);
    }
    assert_eq!(text, expected);
    assert_eq!(bench.shared().told.len(), 2, "asked once for each reader");
    assert_eq!(bench.read_file(&mut file, 0, 16).unwrap(), "verdict unknown\n", "and once more");
}

#[test]
fn health_that_cannot_be_read_says_what_to_do() {
    let mut bench = Bench::new();
    let off = Features { health: Switch::Off, ..features() };
    bench.become_now(0, Unit { features: off, ..ready(1) });
    let error = bench.read("sdC0/smart").unwrap_err();
    assert!(error.message.contains("smart on") && bench.told().is_none(), "{error}");
    bench.become_now(0, ready(1));
    bench.shared().answer = Some(BlockError::Unsupported);
    let error = bench.read("sdC0/smart").unwrap_err();
    assert_eq!(error.number, errno::EOPNOTSUPP);
    assert!(error.message.contains("sdC0: the disk does not support"), "{error}");
}

#[test]
fn commands_reach_the_disk_and_are_answered_when_it_is_done() {
    let mut bench = Bench::new();
    for (command, what, password) in [
        ("smart off", Management::SetHealth(false), ""),
        ("selftest short\n", Management::SelfTest(SelfTest::Short), ""),
        ("sleep", Management::SetPower(Power::Sleep), ""),
        ("unlock master text:x", Management::Unlock(Password::Master), "x"),
        (
            "security set maximum hex:4142 WD WX 11",
            Management::SetPassword { which: Password::User, maximum: true },
            "AB",
        ),
        ("capacity 50 WD WX 11", Management::SetCapacity { sectors: 50 }, ""),
    ] {
        bench.command(command).unwrap();
        assert_eq!(bench.told(), Some((what, password.to_owned())), "{command}");
    }
    bench.shared().log.clear();
    bench.command("standby").unwrap();
    let flushed = |(operation, ..): &(Operation, u64, u64)| *operation == Operation::Flush;
    assert!(!bench.shared().log.iter().any(flushed), "that would wake it again");
}

#[test]
fn what_destroys_data_reaches_no_other_disk() {
    let mut bench = Bench::new();
    for command in [
        "security erase text:x WD WX 12",
        "security erase text:x sdC0",
        "security set text:x QM1",
        "capacity 5 WD",
    ] {
        let error = bench.command(command).unwrap_err();
        assert!(error.message.contains("\"WD WX 11\""), "{error}");
    }
    assert!(bench.command("security erase text:x").unwrap_err().message.contains("at the end"));
    assert!(bench.told().is_none());
    let mut nameless = ready(2);
    nameless.identity.serial.clear();
    bench.become_now(0, nameless);
    bench.command("security erase text:x sdC0").unwrap();
    assert!(bench.told().is_some());
}

#[test]
fn what_a_disk_refuses_is_said_with_what_to_do() {
    let mut bench = Bench::new();
    bench.shared().answer = Some(BlockError::Aborted);
    let wrong = bench.command("unlock text:wrong").unwrap_err();
    assert!(wrong.number == errno::EACCES && wrong.message.contains("five"), "{wrong}");
    assert!(bench.command("apm 7").unwrap_err().message.contains("with this value"));
    bench.shared().answer = None;
    for (word, security) in [
        ("frozen", Security { frozen: true, ..features().security }),
        ("cut the disk's power", Security { expired: true, ..features().security }),
    ] {
        bench.become_now(0, Unit { features: Features { security, ..features() }, ..ready(1) });
        bench.shared().told.clear();
        let error = bench.command("security disable text:x").unwrap_err();
        assert!(error.message.contains(word) && bench.told().is_none(), "{error}");
    }
}

#[test]
fn a_locked_disk_and_an_empty_drive_say_what_to_do() {
    let mut bench = Bench::new();
    let security = Security { enabled: true, locked: true, ..features().security };
    let locked = Features { security, ..features() };
    bench.become_now(0, Unit { state: UnitState::Locked, features: locked, ..ready(1) });
    let error = bench.read("sdC0/data").unwrap_err();
    assert_eq!(error.number, errno::EACCES);
    assert!(error.message.contains("outboard disk security unlock sdC0"), "{error}");
    let control = bench.read("sdC0/ctl").unwrap();
    assert!(control.contains("\nsecurity enabled locked\n"), "{control}");
    let geometry = Geometry { sectors: 0, ..ready(2).geometry };
    let features = Features { removable: true, ..Features::NONE };
    bench.become_now(0, Unit { state: UnitState::Empty, features, geometry, ..ready(2) });
    let error = bench.read("sdC0/data").unwrap_err();
    assert_eq!(error.number, errno::ENOMEDIUM);
    assert!(error.message.contains("outboard disk load sdC0"), "{error}");
    bench.command("load").unwrap();
    let mut top = bench.open("ctl", WRITE).unwrap();
    let answer = bench.tree.write(&mut top, 0, b"flush", REQUEST).unwrap();
    assert!(matches!(answer, Answer::Now(5)), "there is nothing to be flushed");
}

#[test]
fn files_of_another_disk_are_of_no_use_until_they_are_opened_again() {
    let mut bench = Bench::new();
    let mut data = bench.open("sdC0/data", READ).unwrap();
    let mut control = bench.open("sdC0/ctl", WRITE).unwrap();
    bench.read_file(&mut data, 0, 512).unwrap();
    let node = bench.tree.child(&bench.tree.root(), "sdC0").unwrap();
    let before = bench.tree.attributes(&node).unwrap().qid;
    bench.become_now(0, ready(2));
    let error = bench.read_file(&mut data, 0, 512).unwrap_err();
    assert_eq!(error.number, errno::ENODEV);
    assert!(error.message.contains("open it again"), "{error}");
    let error = bench.tree.write(&mut control, 0, b"eject", REQUEST).unwrap_err();
    assert_eq!((error.number, bench.told()), (errno::ENODEV, None));
    let after = bench.tree.attributes(&node).unwrap().qid;
    assert_eq!((after.path, after.version), (before.path, before.version + 1));
    let mut data = bench.open("sdC0/data", READ).unwrap();
    bench.read_file(&mut data, 0, 512).unwrap();
}

#[test]
fn disks_that_are_pulled_out_are_not_listed_and_those_that_have_failed_are() {
    let mut bench = Bench::new();
    bench.become_now(2, ready(1));
    assert_eq!(bench.names(), ["ctl", "stats", "sdC0", "sdC1"]);
    let node = bench.tree.child(&bench.tree.root(), "sdC0").unwrap();
    bench.become_now(0, Unit { state: UnitState::Absent, ..ready(2) });
    assert_eq!(bench.names(), ["ctl", "stats", "sdC1"]);
    assert_eq!(bench.tree.attributes(&node).unwrap_err().number, errno::ENODEV);
    assert!(!bench.read("ctl").unwrap().contains("sdC0"));
    assert!(!bench.read("stats").unwrap().contains("sdC0"));
    bench.become_now(0, Unit { state: UnitState::Failed(FailedReason::GivenUp), ..ready(3) });
    assert_eq!(bench.names(), ["ctl", "stats", "sdC0", "sdC1"]);
    let control = bench.read("sdC0/ctl").unwrap();
    assert!(control.contains("status failed: it did not come back"), "{control}");
}

#[test]
fn statistics_have_errors_by_kind_and_how_long_it_took() {
    let mut bench = Bench::new();
    let mut data = bench.open("sdC0/data", READ).unwrap();
    bench.read_file(&mut data, 0, 512).unwrap();
    bench.shared().bad.insert(9, true);
    assert!(bench.read_file(&mut data, 9 * 512, 512).unwrap_err().message.contains("sector 9"));
    let stats = bench.read("sdC0/stats").unwrap();
    for line in ["file-reads 2", "errors-media 1", "active-peak 1", "read-us-p99 0"] {
        assert!(stats.lines().any(|found| found == line), "{stats}");
    }
    assert!(!stats.contains("flush-us"), "{stats}");
    assert!(bench.read("stats").unwrap().contains("sdC0 file-errors 1\n"));
}
