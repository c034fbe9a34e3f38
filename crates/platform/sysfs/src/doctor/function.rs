//! Whether one function can be bound, and used.

use super::{Finding, Viewer, vfio};
use crate::function::VFIO_DRIVER;
use crate::{BindOptions, Function, HandoverError, Machine, Survey, SysfsError, System};

pub(super) fn check(
    machine: &Machine,
    function: &Function,
    viewer: &Viewer,
    system: &dyn System,
    findings: &mut Vec<Finding>,
) -> Result<(), SysfsError> {
    let address = function.address;
    if function.is_on_vfio() {
        findings.extend(vfio::node(machine, function, viewer, system)?);
        let processes = Survey::take(machine)?.vfio_users(function);
        let text = match &processes[..] {
            [] => "no process has it".to_owned(),
            list => {
                let names: Vec<_> = list.iter().map(ToString::to_string).collect();
                format!("{} has it", names.join(", "))
            }
        };
        findings.push(Finding::good("users", text));
    } else {
        findings.push(binding(machine, function, system)?);
    }
    findings.push(reset(function));
    findings.extend(power(function));
    if machine.persisted(address).as_deref() == Some(VFIO_DRIVER) {
        findings.push(if machine.has_driverctl() {
            Finding::good("at start", "driverctl binds it whenever the machine starts")
        } else {
            let text = "it is to be bound whenever the machine starts, and driverctl is not there \
                        to do it";
            Finding::trouble("at start", text)
                .next("apt-get install driverctl, or dnf install driverctl")
        });
    }
    Ok(())
}

/// Whether it could be bound, by trying to plan that.
fn binding(
    machine: &Machine,
    function: &Function,
    system: &dyn System,
) -> Result<Finding, SysfsError> {
    const TOPIC: &str = "binding";
    let address = function.address;
    let text = match machine.plan_bind(&[address], BindOptions::default(), system) {
        Ok(plan) => {
            let users = plan.moves().iter().map(|one| &one.users);
            let lost: Vec<_> = users.flat_map(|u| u.disks.iter().chain(&u.interfaces)).collect();
            let lost = lost.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
            let lost =
                if lost.is_empty() { String::new() } else { format!("; {lost} would go away") };
            let text = format!("it can be bound{lost}");
            return Ok(Finding::good(TOPIC, text).next(format!("outboard bind {address}")));
        }
        Err(HandoverError::Machine(error)) => return Err(error),
        Err(error) => error.to_string(),
    };
    Ok(Finding::trouble(TOPIC, text))
}

fn reset(function: &Function) -> Finding {
    match &function.reset_methods[..] {
        [] => {
            Finding::note("reset", "the kernel cannot reset it; its driver has to bring it to rest")
        }
        methods => Finding::good("reset", format!("by {}", methods.join(", "))),
    }
}

/// A function without power answers all ones.
fn power(function: &Function) -> Option<Finding> {
    let state = function.power_state.as_deref().filter(|state| state.starts_with("D3cold"))?;
    let wake = format!("echo on > /sys/bus/pci/devices/{}/power/control", function.address);
    Some(
        Finding::note("power", format!("it sleeps ({state}), and wakes when it is used"))
            .next(wake),
    )
}
