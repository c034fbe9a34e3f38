//! Handing functions to VFIO, and back to the kernel.
//!
//! [`Machine::plan_bind`] and [`Machine::plan_unbind`] look at the machine, refuse what would do
//! harm, and say which steps they would take; they change nothing. [`Plan::carry_out`] takes the
//! steps one by one, looks whether each did what it should, and puts everything back if one did
//! not. No step concerns a function that the plan does not name.

mod bind;
mod error;
mod restore;
mod step;
mod unbind;

use crate::function::VFIO_DRIVER;
use crate::{Function, Machine, System, Users};
pub use bind::BindOptions;
pub use error::{HandoverError, Restored};
pub use step::Step;
pub use unbind::UnbindOptions;

/// The folder of the driver that hands functions to processes, once its module is loaded.
pub(crate) const VFIO_FOLDER: &str = "/sys/bus/pci/drivers/vfio-pci";

/// A function that a plan moves.
#[derive(Debug, Clone)]
pub struct Move {
    /// The function as it was when the plan was made.
    pub function: Function,
    /// What the system has behind it, and loses when it is bound.
    pub users: Users,
    /// The driver that it was to have at the next start.
    pub persisted: Option<String>,
}

/// In which direction a plan goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Goal {
    Vfio,
    Kernel,
}

/// What is to be done, in order.
#[derive(Debug)]
pub struct Plan {
    goal: Goal,
    moves: Vec<Move>,
    steps: Vec<Step>,
}

impl Plan {
    /// The functions that it is about.
    pub fn moves(&self) -> &[Move] {
        &self.moves
    }

    /// What it does; nothing if everything is as it should be.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Takes the steps, telling `done` of each.
    ///
    /// # Errors
    ///
    /// If a step fails, all that was done is undone; the error says whether that worked.
    pub fn carry_out(
        &self,
        machine: &Machine,
        system: &mut dyn System,
        done: &mut dyn FnMut(&Step),
    ) -> Result<(), HandoverError> {
        self.check_permission(machine, system)?;
        for step in &self.steps {
            let taken = step.take(machine, system).and_then(|()| self.check(machine, step));
            if let Err(trouble) = taken {
                let restored = restore::all(&self.moves, machine, system);
                return Err(HandoverError::Step { step: step.clone(), trouble, restored });
            }
            done(step);
        }
        Ok(())
    }

    /// Nothing is begun that could not be ended.
    fn check_permission(
        &self,
        machine: &Machine,
        system: &dyn System,
    ) -> Result<(), HandoverError> {
        for step in &self.steps {
            if let Step::Override { address, .. } = step {
                let file = machine.function_folder(*address).join("driver_override");
                if !system.may_write(&file) {
                    return Err(HandoverError::NotAllowed(*address));
                }
            }
        }
        Ok(())
    }

    /// Whether a step did what it should.
    fn check(&self, machine: &Machine, step: &Step) -> Result<(), String> {
        match step {
            Step::LoadModule(VFIO_DRIVER) if !machine.path(VFIO_FOLDER).is_dir() => {
                Err(format!("the module {VFIO_DRIVER} is loaded, and there is no such driver"))
            }
            Step::Probe(address) if self.goal == Goal::Vfio => {
                let now = machine.function(*address).map_err(|error| error.to_string())?;
                match now.driver.as_deref() {
                    Some(VFIO_DRIVER) => Ok(()),
                    Some(other) => Err(format!("{other} took {address} instead of {VFIO_DRIVER}")),
                    None => Err(format!(
                        "{VFIO_DRIVER} did not take {address}; the kernel's log says why (dmesg | tail)"
                    )),
                }
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
