//! Giving functions back to the kernel.

use super::{Goal, HandoverError, Move, Plan, Step};
use crate::function::VFIO_DRIVER;
use crate::{Function, Machine, Survey, Users};
use outboard_pci::Address;

/// What giving back is to be like, beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct UnbindOptions {
    /// Do not bind when the machine starts any more, either.
    pub persist: bool,
}

impl Machine {
    /// How to give functions back to the kernel. Those that it has already are left as they are.
    ///
    /// # Errors
    ///
    /// Says why not: a process has the function.
    pub fn plan_unbind(
        &self,
        addresses: &[Address],
        options: UnbindOptions,
    ) -> Result<Plan, HandoverError> {
        let survey = Survey::take(self)?;
        let mut moves: Vec<Move> = Vec::new();
        for address in addresses {
            let function = self.function(*address)?;
            // The kernel would make whoever takes it away wait until the process lets it go.
            let processes = survey.vfio_users(&function);
            if function.is_on_vfio() && !processes.is_empty() {
                return Err(HandoverError::Held { address: *address, processes });
            }
            if !moves.iter().any(|one| one.function == function) {
                let persisted = self.persisted(*address);
                moves.push(Move { function, users: Users::default(), persisted });
            }
        }
        let steps = moves.iter().flat_map(|one| steps(one, options)).collect();
        Ok(Plan { goal: Goal::Kernel, moves, steps })
    }
}

fn steps(one: &Move, options: UnbindOptions) -> Vec<Step> {
    let function: &Function = &one.function;
    let address = function.address;
    let mut steps = Vec::new();
    // An override that names another driver is somebody else's.
    if function.driver_override.as_deref() == Some(VFIO_DRIVER) {
        steps.push(Step::Override { address, driver: None });
    }
    if function.is_on_vfio() {
        steps.push(Step::Unbind { address, driver: VFIO_DRIVER.to_owned() });
    }
    if function.is_on_vfio() || function.driver.is_none() {
        steps.push(Step::Probe(address));
    }
    if options.persist && one.persisted.as_deref() == Some(VFIO_DRIVER) {
        steps.push(Step::Forget(address));
    }
    steps
}
