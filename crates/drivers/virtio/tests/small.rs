//! The drivers of small devices on QEMU's: random bytes and consoles.

mod support;

use outboard_hw::dma::{Constraints, DmaBuffer};
use outboard_lab::{Lab, LabConfig, LabDevice, LabInterrupts, Machine};
use outboard_linux::{InterruptSource, now};
use outboard_pci::Identity;
use outboard_virtio::transport::{MmioTransport, PciTransport, Transport};
use outboard_virtio::{
    Console, ConsoleConfig, DeviceConfig, DeviceState, Failure, Filled, Rng, RngError,
};
use rustix::process::{Pid, Signal, kill_process};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};
use support::noise;
use tempfile::TempDir;

/// How long a test waits for anything.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits for an interrupt, or until the driver wants to be looked at; a while at most, as what a
/// test waits for may also come over a socket.
fn wait(interrupts: &mut LabInterrupts, until: Option<outboard_hw::Instant>) {
    let most = Duration::from_millis(20);
    let time = until.map_or(most, |until| until.since(now()).min(most));
    interrupts.wait(time).unwrap();
}

fn start(arguments: &[&str]) -> Lab {
    Lab::start(&LabConfig::new(Vec::new()).with_arguments(arguments.iter().copied())).unwrap()
}

fn open(lab: &Lab, is: fn(&Identity) -> bool) -> (PciTransport<LabDevice>, LabInterrupts) {
    let function = lab.functions().iter().find(|one| is(&one.identity)).unwrap();
    let (device, interrupts) = lab.open(function.address).unwrap();
    (PciTransport::new(device).unwrap(), interrupts)
}

struct RngBench<T: Transport> {
    driver: Rng<T>,
    interrupts: LabInterrupts,
    done: Vec<Filled>,
}

impl<T: Transport> RngBench<T> {
    fn new((transport, interrupts): (T, LabInterrupts)) -> Self {
        let driver = Rng::new(transport, DeviceConfig::default()).unwrap();
        Self { driver, interrupts, done: Vec::new() }
    }

    fn buffer(&self, bytes: usize) -> DmaBuffer {
        self.driver.dma().allocate(bytes, &Constraints::NONE).unwrap()
    }

    fn run_until(&mut self, condition: impl Fn(&Self) -> bool) {
        let began = Instant::now();
        while !condition(self) {
            let (driver, done) = (&mut self.driver, &mut self.done);
            self.interrupts.take(&mut |vector| driver.interrupt(vector));
            driver.poll(now(), &mut |filled| done.push(filled));
            self.interrupts.rearm();
            assert!(began.elapsed() < PATIENCE, "nothing came of it: {:?}", self.driver.state());
            if !condition(self) {
                wait(&mut self.interrupts, self.driver.next_deadline());
            }
        }
    }

    /// So many random bytes.
    fn fill(&mut self, bytes: usize) -> Vec<u8> {
        let mut random = Vec::new();
        while random.len() < bytes {
            self.driver.submit(self.buffer(bytes - random.len())).unwrap();
            self.run_until(|bench| !bench.done.is_empty());
            let Filled { buffer, result } = self.done.pop().unwrap();
            let mut part = vec![0; result.unwrap()];
            buffer.read_bytes(0, &mut part);
            random.extend(part);
        }
        random
    }
}

#[test]
fn random_bytes_are_those_of_the_source() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("egd");
    let socket = format!("socket,id=egd,path={},server=on,wait=off", path.display());
    for packed in ["off", "on"] {
        let device = format!("virtio-rng-pci,rng=rng,addr=5,packed={packed}");
        let arguments =
            ["-chardev", &socket, "-object", "rng-egd,id=rng,chardev=egd", "-device", &device];
        let lab = start(&arguments);
        let mut source = UnixStream::connect(&path).unwrap();
        let known = noise(3, 20_000);
        let answer = known.clone();
        // "Entropy gathering daemon": 2 and a number ask for so many bytes.
        let thread = std::thread::spawn(move || {
            let (mut asked, mut given) = ([0; 2], 0);
            while source.read_exact(&mut asked).is_ok() {
                assert_eq!(asked[0], 2);
                let end = given + usize::from(asked[1]);
                if source.write_all(&answer[given..end]).is_err() {
                    break;
                }
                given = end;
            }
        });
        let mut bench = RngBench::new(open(&lab, outboard_virtio::is_rng));
        assert!(bench.fill(5000) == known[..5000]);
        // Several at a time share what comes, in order.
        for _ in 0..3 {
            bench.driver.submit(bench.buffer(100)).unwrap();
        }
        bench.run_until(|bench| bench.done.len() == 3);
        bench.driver.stop();
        bench.run_until(|bench| bench.driver.is_stopped());
        assert_eq!(bench.driver.state(), DeviceState::Stopped);
        assert!(bench.driver.submit(bench.buffer(1)).is_err());
        drop((bench, lab));
        thread.join().unwrap();
    }
}

#[test]
fn a_source_at_a_fixed_address_does_as_well() {
    let config = LabConfig { machine: Machine::MicroV2, ..LabConfig::new(Vec::new()) };
    let lab = Lab::start(&config.with_arguments([
        "-object",
        "rng-builtin,id=rng",
        "-device",
        "virtio-rng-device,rng=rng,bus=virtio-mmio-bus.0",
    ]))
    .unwrap();
    let (registers, interrupts) = lab.open_mmio(0).unwrap();
    let transport = MmioTransport::new(registers, lab.dma()).unwrap();
    let mut bench = RngBench::new((transport, interrupts));
    let (one, other) = (bench.fill(1000), bench.fill(1000));
    assert!(one != other && one.iter().any(|byte| *byte != 0));
}

#[test]
fn the_death_of_a_source_ends_what_it_had() {
    let lab = start(&["-object", "rng-builtin,id=rng", "-device", "virtio-rng-pci,rng=rng,addr=5"]);
    let mut bench = RngBench::new(open(&lab, outboard_virtio::is_rng));
    bench.fill(10);
    kill_process(Pid::from_raw(lab.process_id() as i32).unwrap(), Signal::KILL).unwrap();
    bench.driver.submit(bench.buffer(10)).unwrap();
    bench.run_until(|bench| bench.driver.is_stopped());
    assert_eq!(bench.driver.state(), DeviceState::Failed(Failure::Removed));
    assert!(matches!(bench.done[..], [Filled { result: Err(RngError::Gone), .. }]));
}

struct ConsoleBench {
    driver: Console<PciTransport<LabDevice>>,
    interrupts: LabInterrupts,
    sockets: Vec<UnixStream>,
    _lab: Lab,
}

impl ConsoleBench {
    /// A device with so many ports at most, of which the first is a console, and so many others.
    fn new(folder: &Path, ports: usize, options: &str) -> Self {
        let mut arguments =
            vec!["-device".to_owned(), format!("virtio-serial-pci,addr=6{options}")];
        let paths: Vec<_> = (0..ports).map(|port| folder.join(format!("port{port}"))).collect();
        for (port, path) in paths.iter().enumerate() {
            let path = path.display();
            let kind = if port == 0 { "virtconsole" } else { "virtserialport" };
            arguments.extend([
                "-chardev".to_owned(),
                format!("socket,id=c{port},path={path},server=on,wait=off"),
                "-device".to_owned(),
                format!("{kind},chardev=c{port},nr={port},name=port {port}"),
            ]);
        }
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let lab = start(&arguments);
        let sockets: Vec<_> = paths.iter().map(|path| UnixStream::connect(path).unwrap()).collect();
        sockets.iter().for_each(|socket| socket.set_nonblocking(true).unwrap());
        let (transport, interrupts) = open(&lab, outboard_virtio::is_console);
        let driver = Console::new(transport, ConsoleConfig::default()).unwrap();
        Self { driver, interrupts, sockets, _lab: lab }
    }

    fn run_until(&mut self, mut condition: impl FnMut(&mut Self) -> bool) {
        let began = Instant::now();
        loop {
            let driver = &mut self.driver;
            self.interrupts.take(&mut |vector| driver.interrupt(vector));
            driver.poll(now());
            self.interrupts.rearm();
            if condition(self) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "nothing came of it: {:?}", self.driver.ports());
            wait(&mut self.interrupts, self.driver.next_deadline());
        }
    }

    /// Passes bytes through a port, out and in again, both ways at the same time.
    fn exchange(&mut self, port: u16, bytes: usize) {
        let (out, back) = (noise(u64::from(port) + 1, bytes), noise(u64::from(port) + 9, bytes));
        let (mut written, mut sent, mut seen, mut read) = (0, 0, Vec::new(), Vec::new());
        self.run_until(|bench| {
            // QEMU forgets what a console says while its socket is full.
            let most = out.len().min(seen.len() + 16_384);
            written += bench.driver.write(port, &out[written..most]);
            let socket = &mut bench.sockets[usize::from(port)];
            match socket.write(&back[sent..]) {
                Ok(count) => sent += count,
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let mut part = [0; 3000];
            match socket.read(&mut part) {
                Ok(count) => seen.extend_from_slice(&part[..count]),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            let count = bench.driver.read(port, &mut part);
            read.extend_from_slice(&part[..count]);
            seen.len() >= out.len() && read.len() >= back.len()
        });
        assert!(seen == out && read == back, "port {port}");
    }
}

#[test]
fn ports_carry_bytes_both_ways() {
    for options in [",max_ports=4", ",max_ports=4,packed=on", ",max_ports=31,disable-modern=on"] {
        let folder = TempDir::new().unwrap();
        let mut bench = ConsoleBench::new(folder.path(), 3, options);
        // Each is there, and somebody is at its other end.
        bench.run_until(|bench| {
            bench.driver.ports().iter().filter(|port| port.is_there && port.is_open).count() == 3
        });
        let ports = bench.driver.ports();
        assert_eq!(ports.len(), if options.contains("31") { 8 } else { 4 });
        let consoles: Vec<_> = ports.iter().map(|port| port.is_console).collect();
        assert_eq!(consoles[..4], [true, false, false, false]);
        bench.run_until(|bench| bench.driver.ports()[2].name == "port 2");
        assert_eq!(bench.driver.write(3, b"nobody is there"), 0);
        for port in [0, 2, 1] {
            bench.exchange(port, 100_000);
        }
        // Whoever leaves is missed.
        bench.sockets.pop();
        bench.run_until(|bench| !bench.driver.ports()[2].is_open);
        bench.driver.stop();
        bench.run_until(|bench| bench.driver.is_stopped());
        assert_eq!(bench.driver.state(), DeviceState::Stopped);
    }
}

#[test]
fn a_console_with_one_port_has_no_control_queue() {
    let folder = TempDir::new().unwrap();
    let mut bench = ConsoleBench::new(folder.path(), 1, ",max_ports=1");
    bench.run_until(|bench| bench.driver.state() == DeviceState::Ready);
    let ports = bench.driver.ports();
    assert!(ports.len() == 1 && ports[0].is_console && ports[0].is_there);
    bench.exchange(0, 100_000);
}
