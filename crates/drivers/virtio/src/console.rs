//! Consoles, and channels between a device and programs (§5.3).

mod control;
mod line;
mod port;

pub use port::{Port, Size};

use crate::VirtioError;
use crate::device::{Device, DeviceConfig, DeviceState};
use crate::recovery::ResetCause;
use crate::spec::console::{
    COLS, CONTROL_RECEIVE, CONTROL_TRANSMIT, ConsoleFeatures, MAX_NR_PORTS, ROWS, receive_queue,
    transmit_queue,
};
use crate::transport::{Transport, read_config};
use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::fmt;
use line::{Line, Way};
use outboard_hw::Instant;
use outboard_hw::dma::DmaError;

/// How a console is driven.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConsoleConfig {
    /// What all small devices have.
    pub device: DeviceConfig,
    /// The most ports to use; others are declined.
    pub ports: u16,
    /// Bytes of each buffer; a queue has as many buffers as entries.
    pub buffer_bytes: usize,
}

impl Default for ConsoleConfig {
    fn default() -> Self {
        Self { device: DeviceConfig::default(), ports: 8, buffer_bytes: 1024 }
    }
}

/// The driver of a console device with one port or several.
///
/// Bytes that the device had when it was reset are lost on their way out, as on a wire that was cut.
#[derive(Debug)]
pub struct Console<T: Transport> {
    device: Device<T>,
    config: ConsoleConfig,
    ports: Vec<Port>,
    /// Control messages from the device and to it, if it has several ports.
    control: Option<(Line, Line)>,
    /// Messages that the device was not given yet: port, event, value.
    messages: VecDeque<(u16, u16, u16)>,
    /// Until when what was written may take, once the driver is to stop.
    stop_at: Option<Instant>,
}

impl<T: Transport> Console<T> {
    /// Takes a device over. It is brought up by [`poll`](Self::poll).
    pub fn new(transport: T, config: ConsoleConfig) -> Result<Self, VirtioError> {
        let ports = config.ports.clamp(1, 64);
        let config = ConsoleConfig { ports, buffer_bytes: config.buffer_bytes.max(64), ..config };
        let device = Device::new(transport, queues(ports), config.device)?;
        let messages = VecDeque::new();
        Ok(Self { device, config, ports: Vec::new(), control: None, messages, stop_at: None })
    }

    /// How the device is.
    pub const fn state(&self) -> DeviceState {
        self.device.state()
    }

    /// The ports that there can be; none before the device was first set up.
    pub fn ports(&self) -> &[Port] {
        &self.ports
    }

    /// Passes bytes to a port, as many as there is room for; how many that were. A port that is not
    /// there takes none.
    pub fn write(&mut self, port: u16, bytes: &[u8]) -> usize {
        let Some(there) = self.ports.get_mut(usize::from(port)).filter(|port| port.is_there) else {
            return 0;
        };
        if !self.device.is_up() || self.device.is_stopping() {
            return 0;
        }
        let number = transmit_queue(port);
        let sent = there.transmit.send(&mut self.device.queues[usize::from(number)], bytes);
        self.device.publish(number);
        sent
    }

    /// Takes bytes that a port has received; how many.
    pub fn read(&mut self, port: u16, into: &mut [u8]) -> usize {
        let Some(there) = self.ports.get_mut(usize::from(port)) else { return 0 };
        let read = there.receive.read(into);
        self.offer(port);
        read
    }

    /// Notes that a vector has fired.
    pub fn interrupt(&mut self, vector: u16) {
        self.device.interrupt(vector);
    }

    /// Does whatever is due. What was received afterwards is found in the [`ports`](Self::ports).
    pub fn poll(&mut self, now: Instant) {
        if self.device.config_has_changed() && self.device.is_up() {
            self.read_size();
        }
        if self.device.advance(now) {
            self.bring_up(now);
        }
        if let Err(cause) = self.reap() {
            self.device.reset(now, cause);
        }
        self.converse();
        if self.device.is_stopping() {
            let until = *self.stop_at.get_or_insert(now + self.device.config.request_time);
            if self.is_idle() || now.reached(until) {
                self.device.close(now);
            }
        }
        if self.device.has_ended() {
            self.ports.iter_mut().for_each(Port::restart);
        } else if !self.is_idle() {
            self.device.watch(now);
        }
    }

    /// When to poll again if there is no interrupt before.
    pub fn next_deadline(&self) -> Option<Instant> {
        // A port takes its time; what is waited for ends with the driver.
        let until = self.stop_at.unwrap_or(Instant::from_nanos(u64::MAX));
        self.device.next_deadline((!self.is_idle()).then_some(until))
    }

    /// Begins to shut down: what was written is passed on, for as long as a request may take, then
    /// the device is brought to rest.
    pub fn stop(&mut self) {
        self.device.stop();
    }

    /// Whether the device is at rest after [`stop`](Self::stop), or was lost.
    pub fn is_stopped(&self) -> bool {
        self.device.has_ended()
    }

    /// Calls `event` with each event that was recorded since the last call, oldest first.
    pub fn drain_events(&mut self, event: &mut dyn FnMut(Instant, &dyn fmt::Display)) {
        self.device.drain_events(event);
    }

    /// Whether the device has all that was written.
    fn is_idle(&self) -> bool {
        self.ports.iter().all(|port| port.transmit.is_idle())
    }

    const fn has_ports(&self) -> bool {
        self.device.features & ConsoleFeatures::MULTIPORT.bits() != 0
    }

    fn bring_up(&mut self, now: Instant) {
        let (most, known) = (self.config.ports, ConsoleFeatures::all().bits());
        self.device.set_up(now, known, |transport, features| {
            if features & ConsoleFeatures::MULTIPORT.bits() == 0 {
                return Ok(2);
            }
            let ports = read_config(transport, |config| config.config_u32(MAX_NR_PORTS));
            let ports = ports.ok_or(VirtioError::RestlessConfig)?;
            match u16::try_from(ports).unwrap_or(u16::MAX).min(most) {
                0 => Err(VirtioError::BadConfig("it has no ports")),
                ports => Ok(queues(ports)),
            }
        });
        if !self.device.is_up() {
            return;
        }
        if self.ports.is_empty() && self.make_lines().is_err() {
            return self.device.refuse(now);
        }
        self.ports.iter_mut().for_each(Port::restart);
        self.greet();
        self.read_size();
        for port in 0..self.ports.len() as u16 {
            self.offer(port);
        }
    }

    /// Makes the buffers of all queues.
    fn make_lines(&mut self) -> Result<(), DmaError> {
        let (dma, bytes) = (self.device.transport.dma(), self.config.buffer_bytes);
        let queues = &self.device.queues;
        let line = |number: u16, way| {
            let entries = queues[usize::from(number)].areas().entries;
            Line::new(&*dma, way, entries, bytes)
        };
        if self.has_ports() {
            let receive = line(CONTROL_RECEIVE, Way::FromDevice)?;
            self.control = Some((receive, line(CONTROL_TRANSMIT, Way::ToDevice)?));
        }
        let ports = if self.has_ports() { queues.len() / 2 - 1 } else { 1 };
        for port in 0..ports as u16 {
            let receive = line(receive_queue(port), Way::FromDevice)?;
            let transmit = line(transmit_queue(port), Way::ToDevice)?;
            self.ports.push(Port::new(receive, transmit));
        }
        Ok(())
    }

    /// Gives the device what buffers of a port are free.
    fn offer(&mut self, port: u16) {
        let number = receive_queue(port);
        let Some(there) = self.ports.get_mut(usize::from(port)) else { return };
        if self.device.is_up() && there.receive.offer(&mut self.device.queues[usize::from(number)])
        {
            self.device.publish(number);
        }
    }

    /// Takes all that the device is done with, and asks to be told of what comes.
    fn reap(&mut self) -> Result<(), ResetCause> {
        if !self.device.is_up() {
            return Ok(());
        }
        let queues = &mut self.device.queues;
        let control = self.control.iter_mut().flat_map(|(receive, transmit)| {
            [(CONTROL_RECEIVE, receive), (CONTROL_TRANSMIT, transmit)]
        });
        let ports = (0..).zip(&mut self.ports).flat_map(|(number, port)| {
            let Port { receive, transmit, .. } = port;
            [(receive_queue(number), receive), (transmit_queue(number), transmit)]
        });
        for (number, line) in control.chain(ports) {
            let queue = &mut queues[usize::from(number)];
            // More than there are can only be done by a device that answers as fast as it is asked.
            let mut left = queue.areas().entries;
            loop {
                match line.take(queue).map_err(ResetCause::Broken)? {
                    true if left == 0 => {
                        self.device.look_again = true;
                        break;
                    }
                    true => left -= 1,
                    false if !queue.listen() => break,
                    false => {}
                }
            }
        }
        Ok(())
    }

    /// Reads the size of a console that has only one port.
    fn read_size(&mut self) {
        let has_size = self.device.features & ConsoleFeatures::SIZE.bits() != 0;
        if self.has_ports() || !has_size {
            return;
        }
        let read = |config: &T| (config.config_u16(COLS), config.config_u16(ROWS));
        let size = read_config(&self.device.transport, read);
        if let (Some((cols, rows)), Some(port)) = (size, self.ports.first_mut()) {
            port.size = Some(Size { cols, rows });
        }
    }
}

/// How many queues a device with several ports has for so many of them (§5.3.2).
const fn queues(ports: u16) -> u16 {
    2 * (ports + 1)
}
