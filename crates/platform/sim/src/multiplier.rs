//! A Serial ATA port multiplier (SATA §16): several devices behind one port.
//!
//! It answers at its control port, where it is a device like others. What goes on at its device
//! ports is the HBA model's business, which has the time for that.

use crate::Random;
use crate::sata::{Command, End, Plan, Protocol, Report, Reset, SataDevice};
use crate::seat::{Link, Seat};
use core::time::Duration;
use outboard_ahci::spec::ata::Error;
use outboard_ahci::spec::multiplier::{
    self, CONTROL_PORT, Features, MAX_DEVICE_PORTS, READ_PORT_MULTIPLIER, WRITE_PORT_MULTIPLIER,
    general, port,
};
use outboard_ahci::spec::registers::{SataControl, serial_error, signature};
use outboard_hw::Instant;

/// What a multiplier is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MultiplierConfig {
    /// Device ports.
    pub ports: u8,
    /// Product and vendor, as the register has them.
    pub product: u32,
    /// Whether it tells of changes by itself.
    pub notification: bool,
}

impl MultiplierConfig {
    /// An ordinary one.
    pub const fn new(ports: u8) -> Self {
        Self { ports, product: 0x3726_1095, notification: true }
    }
}

/// What the host has asked a multiplier to do at a device port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// SControl was written.
    Control { port: u8, value: u32 },
    /// Bits of SError were cleared.
    ErrorsCleared { port: u8 },
}

/// A port multiplier, with what is behind it.
pub struct Multiplier {
    config: MultiplierConfig,
    seats: Vec<Seat>,
    error_enable: u32,
    features_enabled: Features,
    /// What the host was told of [`general::ERROR`].
    told: u32,
    asked: Vec<Asked>,
}

impl Multiplier {
    /// A multiplier without devices.
    pub fn new(config: MultiplierConfig) -> Self {
        let ports = usize::from(config.ports).min(MAX_DEVICE_PORTS);
        let mut multiplier = Self {
            config,
            seats: (0..ports).map(|_| Seat::new()).collect(),
            error_enable: 0,
            features_enabled: Features::empty(),
            told: 0,
            asked: Vec::new(),
        };
        multiplier.restart();
        multiplier
    }

    /// The same with a device at a port.
    pub fn with(mut self, port: u8, device: Box<dyn SataDevice>) -> Self {
        if let Some(seat) = self.seat(port) {
            seat.device = Some(device);
        }
        self
    }

    pub(crate) fn seat(&mut self, port: u8) -> Option<&mut Seat> {
        self.seats.get_mut(usize::from(port))
    }

    /// How many device ports it has.
    pub(crate) fn ports(&self) -> u8 {
        self.seats.len() as u8
    }

    pub(crate) fn take_asked(&mut self) -> Vec<Asked> {
        core::mem::take(&mut self.asked)
    }

    /// All device ports but the first are switched off (SATA §16.4.2.3).
    fn restart(&mut self) {
        for (index, seat) in self.seats.iter_mut().enumerate() {
            seat.was_reset();
            let detection = if index == 0 { 0 } else { SataControl::OFFLINE };
            seat.control = SataControl::new().with_detection(detection).into();
        }
        self.error_enable = serial_error::EXCHANGED | serial_error::PHY_READY;
        self.features_enabled = Features::empty();
        self.told = 0;
    }

    fn errors(&self) -> u32 {
        let errors = self.seats.iter().map(|seat| seat.errors & self.error_enable != 0);
        errors.enumerate().fold(0, |bits, (port, error)| bits | u32::from(error) << port)
    }

    /// Whether there is something to tell by asynchronous notification; true once for each.
    pub(crate) fn has_news(&mut self) -> bool {
        let errors = self.errors();
        let news = errors & !core::mem::replace(&mut self.told, errors) != 0;
        news && self.features_enabled.contains(Features::NOTIFICATION)
    }

    fn features(&self) -> Features {
        if self.config.notification { Features::NOTIFICATION } else { Features::empty() }
    }

    fn read(&mut self, at: u8, register: u16) -> Option<u32> {
        if at == CONTROL_PORT {
            return Some(match register {
                general::PRODUCT => self.config.product,
                // Revision 1.7 of the product; 1.2, 1.1 and 1.0 of the specification.
                general::REVISION => 0x0000_170e,
                general::PORTS => self.ports().into(),
                general::ERROR => self.errors(),
                general::ERROR_ENABLE => self.error_enable,
                general::FEATURES => self.features().bits(),
                general::FEATURES_ENABLED => self.features_enabled.bits(),
                _ => return None,
            });
        }
        let seat = self.seat(at)?;
        match register {
            port::STATUS if seat.is_offline() => Some(SataControl::OFFLINE.into()),
            port::STATUS => Some(seat.sata_status()),
            port::ERROR => Some(seat.errors),
            port::CONTROL => Some(seat.control),
            _ => None,
        }
    }

    fn write(&mut self, at: u8, register: u16, value: u32) -> Option<()> {
        if at == CONTROL_PORT {
            match register {
                general::ERROR_ENABLE => self.error_enable = value,
                general::FEATURES_ENABLED => {
                    self.features_enabled = Features::from_bits_retain(value) & self.features();
                }
                _ => return None,
            }
            return Some(());
        }
        let seat = self.seats.get_mut(usize::from(at))?;
        match register {
            port::ERROR => {
                seat.errors &= !value;
                self.told &= self.errors();
                self.asked.push(Asked::ErrorsCleared { port: at });
            }
            port::CONTROL => self.asked.push(Asked::Control { port: at, value }),
            _ => return None,
        }
        Some(())
    }
}

impl core::fmt::Debug for Multiplier {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Multiplier").field("config", &self.config).finish_non_exhaustive()
    }
}

const ABORTED: End = End::bad(Error::ABORTED.bits(), 0);

impl SataDevice for Multiplier {
    fn plan(&mut self, command: &Command, _: Instant, _: &mut Random) -> Result<Plan, End> {
        match command.fis.command {
            READ_PORT_MULTIPLIER | WRITE_PORT_MULTIPLIER => {
                Ok(Plan { protocol: Protocol::NonData, bytes: 0, takes: Duration::from_micros(15) })
            }
            _ => Err(ABORTED),
        }
    }

    fn carry_out(&mut self, command: &Command, _: &mut [u8], _: Instant, _: &mut Random) -> End {
        let (at, register) = multiplier::addressed(&command.fis);
        if command.fis.command == WRITE_PORT_MULTIPLIER {
            let written = self.write(at, register, multiplier::written(&command.fis));
            return written.map_or(ABORTED, |()| End::good(0));
        }
        let Some(value) = self.read(at, register) else { return ABORTED };
        End { count: (value & 0xff) as u16, lba: u64::from(value >> 8), ..End::good(0) }
    }

    fn reset(&mut self, reset: Reset, now: Instant) -> Report {
        let takes = Duration::from_micros(200);
        if reset == Reset::Soft {
            return Report { signature: signature::PORT_MULTIPLIER, takes };
        }
        self.restart();
        // Hosts that know nothing of multipliers see the first device, if there is one.
        let Some(seat) = self.seats.first_mut() else {
            return Report { signature: 0, takes: Duration::MAX };
        };
        let reset = if core::mem::take(&mut seat.unpowered) { Reset::PowerOn } else { reset };
        match &mut seat.device {
            Some(device) => {
                seat.link = Link::Up(2);
                seat.task_file = 0x50;
                device.reset(reset, now)
            }
            None => Report { signature: 0, takes: Duration::MAX },
        }
    }

    fn cut_power(&mut self, now: Instant, random: &mut Random) {
        for seat in &mut self.seats {
            if let Some(device) = &mut seat.device {
                device.cut_power(now, random);
                seat.unpowered = true;
            }
        }
        self.restart();
    }

    fn multiplier(&mut self) -> Option<&mut Multiplier> {
        Some(self)
    }

    fn as_any(&mut self) -> &mut dyn core::any::Any {
        self
    }
}
