//! Handing functions to VFIO.

use super::{Goal, HandoverError, Move, Plan, Step, VFIO_FOLDER};
use crate::function::VFIO_DRIVER;
use crate::machine::attribute;
use crate::modules::TYPE1_MODULE;
use crate::{Function, Machine, Survey, System, Users};
use outboard_pci::Address;

/// What binding is to be like, beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct BindOptions {
    /// Move all functions of the IOMMU groups, bridges excepted.
    pub whole_group: bool,
    /// Bind whenever the machine starts, rather than until then.
    pub persist: bool,
}

impl Machine {
    /// How to hand functions to VFIO. Functions that it has already are left as they are.
    ///
    /// # Errors
    ///
    /// Says why not: something is in use, a group is shared, there is no IOMMU.
    pub fn plan_bind(
        &self,
        addresses: &[Address],
        options: BindOptions,
        system: &dyn System,
    ) -> Result<Plan, HandoverError> {
        let mut functions = Vec::new();
        for address in addresses {
            let function = self.function(*address)?;
            if !functions.contains(&function) {
                self.check_can_move(&function)?;
                functions.push(function);
            }
        }
        for function in functions.clone() {
            self.settle_group(&function, options, &mut functions)?;
        }
        let moves = self.moves(functions, system)?;
        let steps = self.steps_to_bind(&moves, options)?;
        Ok(Plan { goal: Goal::Vfio, moves, steps })
    }

    fn check_can_move(&self, function: &Function) -> Result<(), HandoverError> {
        let address = function.address;
        if function.is_pci_bridge() {
            return Err(HandoverError::Bridge(address));
        }
        if function.group.is_none() && !self.allows_no_iommu() {
            return Err(HandoverError::NoIommu(address));
        }
        if !self.function_folder(address).join("driver_override").exists() {
            return Err(HandoverError::NoOverride(address));
        }
        Ok(())
    }

    /// Whether the kernel was told to hand out functions that no IOMMU confines.
    pub fn allows_no_iommu(&self) -> bool {
        self.no_iommu_mode().as_deref() == Some("Y")
    }

    /// Whether the kernel could be told to: most are built without that (`CONFIG_VFIO_NOIOMMU`).
    /// Not known as long as VFIO is not loaded.
    pub fn knows_no_iommu(&self) -> bool {
        self.no_iommu_mode().is_some()
    }

    fn no_iommu_mode(&self) -> Option<String> {
        attribute(&self.path("/sys/module/vfio/parameters"), "enable_unsafe_noiommu_mode")
    }

    /// Adds what else of the group has to move, or says that something has to.
    fn settle_group(
        &self,
        function: &Function,
        options: BindOptions,
        functions: &mut Vec<Function>,
    ) -> Result<(), HandoverError> {
        let Some(group) = function.group else { return Ok(()) };
        let is_named = |one: &Function| functions.iter().any(|f| f.address == one.address);
        let members = self.group_members(group)?.into_iter();
        let others: Vec<_> = members.filter(|one| !one.is_pci_bridge() && !is_named(one)).collect();
        if options.whole_group {
            // Host bridges and the like mostly have no driver, and are in nobody's way.
            let moving = others.into_iter().filter(|one| !one.is_bridge() || one.keeps_group());
            for one in moving {
                self.check_can_move(&one)?;
                functions.push(one);
            }
            return Ok(());
        }
        let others: Vec<_> = others.into_iter().filter(Function::keeps_group).collect();
        if others.is_empty() {
            return Ok(());
        }
        Err(HandoverError::GroupShared { address: function.address, group, others })
    }

    /// Looks who uses the functions, and refuses if anybody does.
    fn moves(
        &self,
        functions: Vec<Function>,
        system: &dyn System,
    ) -> Result<Vec<Move>, HandoverError> {
        let survey = Survey::take(self)?;
        let mut uses = Vec::new();
        let moves = functions.into_iter().map(|function| {
            let is_done = function.is_on_vfio();
            let users = if is_done { Users::default() } else { survey.users(&function, system) };
            uses.extend(users.uses.iter().map(|one| (function.address, one.clone())));
            let persisted = self.persisted(function.address);
            Move { function, users, persisted }
        });
        let moves = moves.collect();
        if uses.is_empty() { Ok(moves) } else { Err(HandoverError::Busy { uses }) }
    }

    fn steps_to_bind(
        &self,
        moves: &[Move],
        options: BindOptions,
    ) -> Result<Vec<Step>, HandoverError> {
        let mut steps = Vec::new();
        let is_needed = moves.iter().any(|one| !one.function.is_on_vfio());
        if is_needed && !self.path(VFIO_FOLDER).is_dir() {
            steps.push(Step::LoadModule(VFIO_DRIVER));
        }
        // Whoever serves the functions needs it. A kernel that has none has iommufd.
        if !self.has_type1() && self.comes_with(TYPE1_MODULE)? == Some(true) {
            steps.push(Step::LoadModule(TYPE1_MODULE));
        }
        for Move { function, .. } in moves.iter().filter(|one| !one.function.is_on_vfio()) {
            let address = function.address;
            // First the name of the driver: from then on no other can take the function.
            steps.push(Step::Override { address, driver: Some(VFIO_DRIVER.to_owned()) });
            if let Some(driver) = function.driver.clone() {
                steps.push(Step::Unbind { address, driver });
            }
            steps.push(Step::Probe(address));
        }
        let chosen = |one: &&Move| one.persisted.as_deref() != Some(VFIO_DRIVER);
        for one in moves.iter().filter(|_| options.persist).filter(chosen) {
            steps.push(Step::Persist(one.function.address));
        }
        Ok(steps)
    }
}
