//! Multipliers at the HBA's ports, and the units behind them.

use super::Hba;
use crate::multiplier::{Face, Multiplier, UNIT_STRIDE, UNITS_PER_PORT, Wish};
use crate::port::{Context, Port};
use crate::spec::registers::{PORT_BYTES, port_base};
use outboard_block::{Completion, Refused, RefusedReason, Request, Tag, UnitId, UnitState};
use outboard_hw::Instant;
use outboard_hw::registers::Window;
use outboard_pci::Device;

/// Where a unit is.
pub(super) enum Place<'a, R> {
    /// At a port of the HBA.
    Direct(&'a Port<R>),
    /// Behind a multiplier.
    Behind(&'a Port<Face>),
    /// Behind a multiplier, or where one could be; nothing was ever found there.
    Empty,
    /// Where something may still be found.
    Unknown,
}

/// The port of the HBA that a unit is at, and the device port if that has a multiplier.
const fn numbers(unit: UnitId) -> (u16, u16) {
    (unit.0 % UNIT_STRIDE, unit.0 / UNIT_STRIDE)
}

impl<D: Device> Hba<D> {
    fn multiplier(&self, port: u16) -> Option<&Multiplier<D::Registers>> {
        let mut multipliers = self.multipliers.iter();
        multipliers.find(|multiplier| u16::from(multiplier.index()) == port)
    }

    /// Whether a unit belongs to a multiplier, be it there or only expected back.
    pub(super) fn is_behind(&self, unit: UnitId) -> bool {
        let (port, device) = numbers(unit);
        if self.multipliers.is_empty() && device == 0 {
            return false;
        }
        device != 0 || self.multiplier(port).is_some_and(|multiplier| !self.is_direct(multiplier))
    }

    /// Whether a device has taken a multiplier's place.
    fn is_direct(&self, multiplier: &Multiplier<D::Registers>) -> bool {
        let port = self.ports.get(usize::from(multiplier.index())).and_then(Option::as_ref);
        multiplier.has_left() && port.is_none_or(Port::is_settled)
    }

    /// Finds a unit.
    pub(super) fn place(&self, unit: UnitId) -> Option<Place<'_, D::Registers>> {
        let (port, device) = numbers(unit);
        let direct = self.ports.get(usize::from(port))?.as_ref()?;
        if !self.is_behind(unit) {
            return Some(Place::Direct(direct));
        }
        if !self.capabilities.port_multiplier() || device >= UNITS_PER_PORT {
            return None;
        }
        let behind = self.multiplier(port).and_then(|multiplier| multiplier.port(device));
        let settled = match self.multiplier(port) {
            Some(multiplier) => multiplier.was_set_up() || self.is_direct(multiplier),
            None => direct.is_settled(),
        };
        let nobody = if settled { Place::Empty } else { Place::Unknown };
        Some(behind.map_or(nobody, Place::Behind))
    }

    pub(super) fn submit_behind(
        &mut self,
        unit: UnitId,
        tag: Tag,
        request: Request,
    ) -> Result<(), Refused> {
        let constraints = self.constraints;
        let (index, device) = numbers(unit);
        let mut multipliers = self.multipliers.iter_mut();
        let multiplier = multipliers.find(|multiplier| u16::from(multiplier.index()) == index);
        match multiplier.and_then(|multiplier| multiplier.port_mut(device)) {
            Some(port) => port.submit(tag, request, &constraints),
            None => Err(request.refused(RefusedReason::NotReady(UnitState::Absent))),
        }
    }

    /// Calls `each` with every multiplier and the HBA's port that it is at.
    fn each_multiplier(
        &mut self,
        now: Instant,
        mut each: impl FnMut(&mut Multiplier<D::Registers>, &mut Port<D::Registers>, &Context<'_>),
    ) {
        if self.multipliers.is_empty() {
            return;
        }
        let mut multipliers = core::mem::take(&mut self.multipliers);
        let (context, ports) = self.split(now);
        for multiplier in &mut multipliers {
            if let Some(Some(port)) = ports.get_mut(usize::from(multiplier.index())) {
                each(multiplier, port, &context);
            }
        }
        self.multipliers = multipliers;
    }

    pub(super) fn interrupt_multipliers(&mut self, pending: u32) {
        let multipliers = self.multipliers.iter_mut();
        multipliers.filter(|m| pending >> m.index() & 1 == 1).for_each(Multiplier::interrupt);
    }

    pub(super) fn kick_multipliers(&mut self, now: Instant) {
        self.each_multiplier(now, |multiplier, _, context| multiplier.kick(context));
    }

    pub(super) fn look_around_behind(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        self.each_multiplier(now, |multiplier, _, context| {
            multiplier.look_around(context, done);
        });
    }

    /// Gives ports to multipliers that were found, takes them back, and does what is due.
    pub(super) fn poll_multipliers(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        self.find_multipliers(now, done);
        let mut reset = false;
        self.each_multiplier(now, |multiplier, port, context| {
            if multiplier.has_left() {
                if port.is_multiplied() {
                    multiplier.attach(context);
                } else if port.is_settled() {
                    multiplier.is_missed(context, done);
                }
            }
            multiplier.poll(context, done);
            match multiplier.take_wish() {
                Wish::None => {}
                Wish::TakeBack => {
                    port.count_generations_from(multiplier.generation() + 1);
                    port.take_back();
                }
                Wish::HbaReset => reset = true,
            }
        });
        if reset {
            self.begin_reset(now);
        }
    }

    fn find_multipliers(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        if !self.capabilities.port_multiplier() {
            return;
        }
        for index in 0..self.ports.len() {
            let found = self.ports[index].as_ref().is_some_and(Port::is_multiplied);
            if !found || self.multiplier(index as u16).is_some() {
                continue;
            }
            let window = Window::new(self.registers.clone(), port_base(index), PORT_BYTES);
            let (context, ports) = self.split(now);
            let new = window.ok().and_then(|w| Multiplier::new(index as u8, w, &context));
            match (new, &mut ports[index]) {
                (Some(mut multiplier), _) => {
                    if self.stopping {
                        multiplier.stop();
                    }
                    self.multipliers.push(multiplier);
                }
                (None, Some(port)) => port.cannot_be_multiplied(&context, done),
                (None, None) => {}
            }
        }
    }

    pub(super) fn look_for_cut_offs_behind(&mut self, now: Instant) {
        self.each_multiplier(now, |multiplier, _, context| {
            multiplier.look_for_cut_off(context);
        });
    }

    pub(super) fn multipliers_were_reset(
        &mut self,
        now: Instant,
        done: &mut dyn FnMut(Completion),
    ) {
        self.each_multiplier(now, |multiplier, _, context| {
            multiplier.hba_was_reset(context, done);
        });
    }

    pub(super) fn multipliers_are_gone(&mut self, now: Instant, done: &mut dyn FnMut(Completion)) {
        self.each_multiplier(now, |multiplier, _, context| multiplier.gone(context, done));
    }
}
