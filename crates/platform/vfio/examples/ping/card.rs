//! The driver of one card, with the descriptors that wake it.

use crate::stack::Stack;
use crate::{Failure, LIMIT};
use outboard_hw::dma::{Constraints, DmaPool, SgList};
use outboard_linux::{InterruptSource, now};
use outboard_net::{Completions, Frame, InterfaceState, NetDriver, Posted, RefusedReason, Tag};
use outboard_vfio::{VfioDevice, VfioInterrupts};
use outboard_virtio::transport::PciTransport;
use outboard_virtio::{Net, NetConfig};
use std::collections::VecDeque;
use std::time::Duration;

/// Bytes of each buffer.
const BYTES: usize = 2048;
/// Buffers that frames are sent from.
const SENDING: usize = 64;
/// How long to wait at most for an interrupt.
const LONGEST_WAIT: Duration = Duration::from_millis(100);

pub(crate) struct Card {
    driver: Net<PciTransport<VfioDevice>>,
    interrupts: VfioInterrupts,
    sending: DmaPool,
    received: u64,
}

impl Card {
    /// Starts the driver, and gives it buffers for frames to come.
    pub(crate) fn start(device: VfioDevice, interrupts: VfioInterrupts) -> Result<Self, Failure> {
        let driver = Net::new(PciTransport::new(device)?, NetConfig::default())?;
        let sending = DmaPool::new(&*driver.dma(), BYTES, SENDING, &Constraints::NONE)?;
        let mut card = Self { driver, interrupts, sending, received: 0 };
        let end = now() + LIMIT;
        loop {
            match card.driver.interface().state {
                InterfaceState::Starting => {}
                InterfaceState::Ready => break,
                state => return Err(format!("the card is {state}").into()),
            }
            if now().reached(end) {
                return Err("the card does not come up".into());
            }
            card.turn(&mut VecDeque::new())?;
            card.wait(None)?;
        }
        let depth = card.driver.interface().shape.receive_depth;
        let pool = DmaPool::new(&*card.driver.dma(), BYTES, depth.into(), &Constraints::NONE)?;
        let mut buffers = VecDeque::new();
        for tag in (0..u64::from(depth)).map(Tag) {
            buffers.push_back(Box::new(Posted { tag, buffer: pool.allocate()? }));
        }
        card.post(buffers)?;
        card.driver.kick(now());
        Ok(card)
    }

    pub(crate) fn mac(&self) -> [u8; 6] {
        self.driver.interface().permanent_mac.0
    }

    /// How many frames have come.
    pub(crate) const fn received(&self) -> u64 {
        self.received
    }

    fn post(&mut self, mut buffers: VecDeque<Box<Posted>>) -> Result<(), Failure> {
        self.driver.post(0, &mut buffers).map_err(|reason| reason.to_string().into())
    }

    /// Sends what is to be sent, as far as there is room, and takes what has come.
    pub(crate) fn exchange(&mut self, stack: &mut Stack) -> Result<(), Failure> {
        let headroom = self.driver.interface().shape.headroom;
        while let Some(frame) = stack.sent.front() {
            let Ok(mut buffer) = self.sending.allocate() else { break };
            buffer.write_bytes(headroom, frame);
            let data = SgList::single(buffer, headroom..headroom + frame.len());
            let frame = Box::new(Frame::plain(Tag(0), data));
            match self.driver.submit(0, &mut VecDeque::from([frame])) {
                Ok(()) => {}
                Err(RefusedReason::QueueFull) => break,
                Err(reason) => return Err(reason.to_string().into()),
            }
            stack.sent.pop_front();
        }
        self.driver.kick(now());
        self.turn(&mut stack.received)
    }

    fn turn(&mut self, frames: &mut VecDeque<Vec<u8>>) -> Result<(), Failure> {
        let driver = &mut self.driver;
        self.interrupts.take(&mut |vector| driver.interrupt(vector));
        let mut done = Completions::new();
        driver.poll(now(), &mut done);
        let (mut spare, mut pieces) = (VecDeque::new(), Vec::new());
        for piece in done.received {
            let start = pieces.len();
            pieces.resize(start + piece.bytes.len(), 0);
            piece.posted.buffer.read_bytes(piece.bytes.start, &mut pieces[start..]);
            spare.push_back(piece.posted);
            if piece.more == 0 {
                frames.push_back(std::mem::take(&mut pieces));
                self.received += 1;
            }
        }
        let lost = done.sent.iter().filter(|sent| sent.result.is_err()).count();
        self.interrupts.rearm();
        if lost > 0 {
            return Err(format!("{lost} frames were lost; {}", self.told()).into());
        }
        if self.driver.interface().state == InterfaceState::Ready && !spare.is_empty() {
            self.post(spare)?;
            self.driver.kick(now());
        }
        Ok(())
    }

    /// Waits for an interrupt, or until the driver or `until` has something to do.
    pub(crate) fn wait(&self, until: Option<Duration>) -> Result<(), Failure> {
        let own = self.driver.next_deadline().map(|deadline| deadline.since(now()));
        let time = [own, until].into_iter().flatten().fold(LONGEST_WAIT, Duration::min);
        Ok(self.interrupts.wait(time)?)
    }

    /// What the driver has told of itself.
    pub(crate) fn told(&mut self) -> String {
        let mut told = format!("the card is {}", self.driver.interface().state);
        self.driver.drain_events(&mut |_, event| {
            told += "; ";
            told += &event.to_string();
        });
        told
    }

    /// Brings the card to rest.
    pub(crate) fn stop(&mut self) -> Result<(), Failure> {
        let mut resets = 0;
        self.driver.counters(&mut |name, value| {
            if name == "device-resets" {
                resets = value;
            }
        });
        if resets > 0 {
            return Err(format!("it was reset; {}", self.told()).into());
        }
        self.driver.stop();
        let end = now() + LIMIT;
        while !self.driver.is_stopped() {
            if now().reached(end) {
                return Err(format!("it does not stop; {}", self.told()).into());
            }
            self.turn(&mut VecDeque::new())?;
            if !self.driver.is_stopped() {
                self.wait(None)?;
            }
        }
        Ok(())
    }
}
