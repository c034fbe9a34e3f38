//! The drivers of small devices on devices in this process that lie, or say nothing.

mod support;

use outboard_hw::Instant;
use outboard_hw::dma::Constraints;
use outboard_virtio::spec::console::ConsoleFeatures;
use outboard_virtio::spec::features::Features;
use outboard_virtio::transport::Transport;
use outboard_virtio::{
    Console, ConsoleConfig, DeviceConfig, DeviceState, Failure, Filled, Rng, RngError,
};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use support::model::ModelTransport;
use support::noise;
use vm_memory::{Bytes, GuestAddress};

struct Rig {
    driver: Rng<ModelTransport>,
    device: ModelTransport,
    /// How many bytes the source says it has filled.
    says: Arc<AtomicU32>,
    now: Instant,
    done: Vec<Filled>,
}

impl Rig {
    fn new(features: Features) -> Self {
        let device = ModelTransport::new(features.bits(), 1, Vec::new());
        let says = Arc::new(AtomicU32::new(10));
        let said = says.clone();
        device.model().other = Some(Box::new(move |_, _, _| said.load(Ordering::Relaxed)));
        let driver = Rng::new(device.clone(), DeviceConfig::default()).unwrap();
        let mut rig = Self { driver, device, says, now: Instant::ORIGIN, done: Vec::new() };
        rig.turn();
        assert_eq!(rig.driver.state(), DeviceState::Ready);
        rig
    }

    fn turn(&mut self) {
        self.device.model().serve();
        let done = &mut self.done;
        self.driver.poll(self.now, &mut |filled| done.push(filled));
    }

    /// Asks for 100 bytes.
    fn ask(&mut self) {
        let buffer = self.device.dma().allocate(100, &Constraints::NONE).unwrap();
        self.driver.submit(buffer).unwrap();
        self.driver.kick(self.now);
    }

    fn result(&mut self) -> Result<usize, RngError> {
        self.done.pop().expect("it came back").result
    }
}

#[test]
fn a_source_that_fills_more_than_it_was_given_or_nothing_is_reset() {
    for layout in [Features::empty(), Features::PACKED, Features::IN_ORDER] {
        for lie in [0, 101, u32::MAX] {
            let mut rig = Rig::new(layout);
            rig.says.store(lie, Ordering::Relaxed);
            rig.ask();
            rig.turn();
            assert_eq!(rig.driver.state(), DeviceState::Recovering);
            // What it had is asked for again, and an honest answer is taken.
            rig.says.store(100, Ordering::Relaxed);
            rig.turn();
            rig.turn();
            assert_eq!(rig.result(), Ok(100));
            assert_eq!(rig.driver.state(), DeviceState::Ready);
            // A liar is given up in the end; every request ends.
            rig.says.store(lie, Ordering::Relaxed);
            for _ in 0..20 {
                if !matches!(rig.driver.state(), DeviceState::Failed(_)) {
                    rig.ask();
                    (0..3).for_each(|_| rig.turn());
                }
            }
            assert_eq!(rig.driver.state(), DeviceState::Failed(Failure::GivenUp));
            assert!(rig.driver.is_stopped());
            assert!(rig.done.iter().all(|filled| filled.result.is_err()));
        }
    }
}

#[test]
fn a_source_that_says_nothing_is_asked_three_times() {
    let mut rig = Rig::new(Features::empty());
    rig.device.model().stuck = Some(0);
    rig.ask();
    for _ in 0..3 {
        assert!(rig.done.is_empty());
        rig.turn();
        assert!(rig.driver.next_deadline().unwrap() > rig.now);
        rig.now = rig.now + Duration::from_secs(31);
        (0..2).for_each(|_| rig.turn());
    }
    assert_eq!(rig.result(), Err(RngError::Timeout));
    assert_eq!(rig.driver.state(), DeviceState::Ready);
}

#[test]
fn a_console_that_nobody_listens_to_is_stopped_in_time() {
    let device = ModelTransport::new(0, 1, Vec::new());
    device.model().stuck = Some(1);
    device.model().other = Some(Box::new(|_, _, _| 0));
    let mut console = Console::new(device.clone(), ConsoleConfig::default()).unwrap();
    let mut now = Instant::ORIGIN;
    console.poll(now);
    assert_eq!(console.write(0, b"hello"), 5);
    device.model().serve();
    console.stop();
    console.poll(now);
    assert_eq!(console.state(), DeviceState::Stopping);
    for _ in 0..100 {
        now = now.max(console.next_deadline().expect("it waits for something"));
        console.poll(now);
        if console.is_stopped() {
            assert_eq!(now.since(Instant::ORIGIN).as_secs(), 30);
            return;
        }
    }
    panic!("it does not stop");
}

#[test]
fn a_console_stands_whatever_is_said_on_its_control_queue() {
    for seed in 1..30 {
        let features = ConsoleFeatures::MULTIPORT.bits() | Features::EVENT_INDEX.bits();
        let device = ModelTransport::new(features, 1, Vec::new());
        device.model().config[4..8].copy_from_slice(&[4, 0, 0, 0]);
        let mut said = noise(seed, 1 << 16).into_iter();
        device.model().other = Some(Box::new(move |queue, memory, chain| {
            let Some((address, bytes, _)) = chain.pieces.iter().find(|piece| piece.2) else {
                return 0;
            };
            let mut next = || said.next().unwrap_or(0);
            // Messages that look like messages, of any length; anything on other queues.
            let mut message = vec![next() & 7, 0, 0, 0, next() & 7, 0, next() & 1, 0];
            message.resize(usize::from(next()) % 80, next());
            if queue != 2 {
                message.resize(usize::from(next()), next());
            }
            message.truncate(*bytes as usize);
            memory.write_slice(&message, GuestAddress(*address)).unwrap();
            message.len() as u32
        }));
        let mut console = Console::new(device.clone(), ConsoleConfig::default()).unwrap();
        let (mut now, mut into, mut received) = (Instant::ORIGIN, [0; 100], 0);
        for round in 0..200 {
            console.poll(now);
            device.model().serve();
            for port in 0..9 {
                console.write(port, b"hello");
                received += console.read(port, &mut into);
            }
            now = now + Duration::from_millis(round);
        }
        assert_eq!(console.state(), DeviceState::Ready, "nothing of this breaks a queue");
        assert!(received > 0 && console.ports().len() == 4);
        console.stop();
        for _ in 0..10 {
            device.model().serve();
            console.poll(now);
        }
        assert!(console.is_stopped());
    }
}
