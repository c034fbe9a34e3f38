//! Lists PCI functions.

use crate::args::ListArgs;
use crate::function::Described;
use crate::pci_ids::PciIds;
use crate::{hosting, print};
use anyhow::Result;
use outboard_lab::LabConfig;
use outboard_sysfs::Machine;

pub(crate) fn run(arguments: ListArgs, json: bool) -> Result<()> {
    let here = arguments.lab.is_none();
    let found: Vec<_> = match arguments.lab {
        Some(disks) => {
            let lab = hosting::start_lab(&disks, &[], LabConfig::DMA_BYTES, None)?;
            let functions = lab.functions().iter();
            functions.map(|function| (function.address, function.identity, None)).collect()
        }
        None => {
            let functions = Machine::here().functions()?.into_iter();
            functions.map(|one| (one.address, one.identity, one.driver)).collect()
        }
    };
    let ids = PciIds::load();
    if found.is_empty() && here && !json {
        print::note(
            "This machine has no PCI functions. To see those of a lab: outboard list --lab",
        );
    }
    for (address, identity, kernel_driver) in found {
        let function = Described::new(address, &identity, kernel_driver, &ids);
        if json {
            print::json("function", &function)?;
        } else {
            print::line_out(&line(&function))?;
        }
    }
    Ok(())
}

/// A function in a line.
fn line(function: &Described) -> String {
    let Described { address, vendor, device, name, kernel_driver, driver, .. } = function;
    let class = function.class_name();
    let ours = driver.map(|driver| format!(" [driver: {driver}]")).unwrap_or_default();
    let kernels = kernel_driver.as_deref();
    let kernels = kernels.map(|d| format!(" [kernel: {d}]")).unwrap_or_default();
    format!("{address} {vendor}:{device} {class}: {name}{ours}{kernels}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use outboard_pci::{Address, Class, Identity};

    #[test]
    fn a_function_is_a_line_with_its_drivers() {
        let identity = Identity {
            vendor: 0x8086,
            device: 0x2922,
            subsystem: None,
            class: Class { base: 1, sub: 6, interface: 1 },
            revision: 2,
        };
        let describe = |driver| {
            let address = Address::new(0, 0, 0x1f, 2);
            line(&Described::new(address, &identity, driver, &PciIds::default()))
        };
        let alone = "0000:00:1f.2 8086:2922 010601: vendor 8086 device 2922 [driver: ahci]";
        assert_eq!(describe(None), alone);
        assert_eq!(describe(Some("ahci".into())), format!("{alone} [kernel: ahci]"));
    }
}
