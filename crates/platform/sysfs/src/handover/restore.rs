//! Putting functions back as they were.

use super::step::driver_file;
use super::{Move, Restored, Step};
use crate::{Function, Machine, System};

/// Puts every function of a plan back as it was, the last one first.
pub(super) fn all(moves: &[Move], machine: &Machine, system: &mut dyn System) -> Restored {
    let mut troubles = Vec::new();
    for one in moves.iter().rev() {
        if let Err(trouble) = restore(one, machine, system) {
            troubles.push(trouble);
        }
    }
    if troubles.is_empty() { Restored::Wholly } else { Restored::Partly(troubles) }
}

/// Compares a function with how it was, rather than to count steps back: what a step that failed
/// did is not known.
fn restore(one: &Move, machine: &Machine, system: &mut dyn System) -> Result<(), String> {
    let was = &one.function;
    let address = was.address;
    let now = || machine.function(address).map_err(|error| error.to_string());
    restore_persisted(one, machine, system)?;
    if let Some(driver) = now()?.driver.filter(|driver| was.driver.as_ref() != Some(driver)) {
        Step::Unbind { address, driver }.take(machine, system)?;
    }
    // Before binding: a driver that is not the one named is not let near the function.
    if now()?.driver_override != was.driver_override {
        Step::Override { address, driver: was.driver_override.clone() }.take(machine, system)?;
    }
    if let Some(driver) = was.driver.as_deref().filter(|_| !is_back(&now(), was)) {
        let file = driver_file(driver, "bind");
        let by_hand = format!("echo {address} > {}", file.display());
        let result = system.write(&machine.path(&file), &address.to_string());
        if let Err(error) = result {
            return Err(format!("{driver} does not take {address} back ({error}); try: {by_hand}"));
        }
        if !is_back(&now(), was) {
            return Err(format!("{driver} does not take {address} back; try: {by_hand}"));
        }
    }
    Ok(())
}

fn is_back(now: &Result<Function, String>, was: &Function) -> bool {
    now.as_ref().is_ok_and(|now| now.driver == was.driver)
}

fn restore_persisted(one: &Move, machine: &Machine, system: &mut dyn System) -> Result<(), String> {
    let address = one.function.address;
    if machine.persisted(address) == one.persisted {
        return Ok(());
    }
    let path = machine.persisted_path(address);
    let result = match &one.persisted {
        Some(driver) => system.put(&path, &format!("{driver}\n")),
        None => system.remove(&path),
    };
    result.map_err(|error| format!("{} cannot be put back: {error}", path.display()))
}
