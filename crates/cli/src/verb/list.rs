//! Lists PCI functions.

use crate::args::ListArgs;
use crate::pci_ids::PciIds;
use crate::{hosting, print};
use anyhow::{Context, Result};
use outboard_lab::LabConfig;
use outboard_pci::config::{CONVENTIONAL_BYTES, ConfigSpace};
use outboard_pci::{Address, Identity};
use serde::Serialize;
use std::path::Path;

#[derive(Serialize)]
struct Function {
    address: String,
    class: String,
    class_name: Option<String>,
    vendor: String,
    device: String,
    name: String,
    /// The kernel's driver that has it now.
    kernel_driver: Option<String>,
    /// The driver of ours that fits it.
    driver: Option<&'static str>,
}

pub(crate) fn run(arguments: ListArgs, json: bool) -> Result<()> {
    let here = arguments.lab.is_none();
    let found = match arguments.lab {
        Some(disks) => {
            let lab = hosting::start_lab(&disks, LabConfig::DMA_BYTES, None)?;
            let functions = lab.functions().iter();
            functions.map(|function| (function.address, function.identity, None)).collect()
        }
        None => this_machine(Path::new("/sys/bus/pci/devices"))?,
    };
    let ids = PciIds::load();
    if found.is_empty() && here && !json {
        print::note(
            "This machine has no PCI functions. To see those of a lab: outboard list --lab",
        );
    }
    for (address, identity, kernel_driver) in found {
        let function = describe(address, &identity, kernel_driver, &ids);
        if json {
            print::json("function", &function)?;
        } else {
            print::line_out(&function.line())?;
        }
    }
    Ok(())
}

fn describe(
    address: Address,
    identity: &Identity,
    kernel_driver: Option<String>,
    ids: &PciIds,
) -> Function {
    let class = identity.class;
    let fits = [(outboard_ahci::matches as fn(&Identity) -> bool, "ahci")];
    Function {
        address: address.to_string(),
        class: class.to_string(),
        class_name: ids.class(class.base, class.sub).map(str::to_owned),
        vendor: format!("{:04x}", identity.vendor),
        device: format!("{:04x}", identity.device),
        name: ids.device(identity.vendor, identity.device),
        kernel_driver,
        driver: fits.iter().find(|(matches, _)| matches(identity)).map(|(_, name)| *name),
    }
}

impl Function {
    fn line(&self) -> String {
        let Self { address, class, class_name, vendor, device, name, kernel_driver, driver } = self;
        let class = class_name.as_deref().unwrap_or(class);
        let ours = driver.map(|driver| format!(" [driver: {driver}]")).unwrap_or_default();
        let kernels = kernel_driver.as_deref();
        let kernels = kernels.map(|d| format!(" [kernel: {d}]")).unwrap_or_default();
        format!("{address} {vendor}:{device} {class}: {name}{ours}{kernels}")
    }
}

/// The functions of this machine, from the files that the kernel offers.
fn this_machine(folder: &Path) -> Result<Vec<(Address, Identity, Option<String>)>> {
    let mut found = Vec::new();
    let entries = match folder.read_dir() {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error).with_context(|| folder.display().to_string()),
    };
    for entry in entries {
        let path = entry?.path();
        let address = path.file_name().and_then(|name| name.to_str()?.parse().ok());
        let Some((address, bytes)) = address.zip(std::fs::read(path.join("config")).ok()) else {
            continue;
        };
        let driver = std::fs::read_link(path.join("driver")).ok();
        let driver = driver.and_then(|link| Some(link.file_name()?.to_str()?.to_owned()));
        if let Some(identity) = Identity::read(&mut Snapshot(bytes)) {
            found.push((address, identity, driver));
        }
    }
    found.sort_by_key(|(address, ..)| *address);
    Ok(found)
}

/// Configuration space as it was when it was read; users who are not root get the first 64 bytes.
struct Snapshot(Vec<u8>);

macro_rules! bytes_of {
    ($($int:ty: $read:ident, $write:ident;)*) => {$(
        fn $read(&mut self, offset: u16) -> $int {
            let bytes = self.0.get(usize::from(offset)..).and_then(|b| b.first_chunk());
            bytes.map_or(<$int>::MAX, |bytes| <$int>::from_le_bytes(*bytes))
        }
        fn $write(&mut self, _: u16, _: $int) {}
    )*};
}

impl ConfigSpace for Snapshot {
    fn size_bytes(&self) -> u16 {
        CONVENTIONAL_BYTES
    }
    bytes_of! { u8: read_u8, write_u8; u16: read_u16, write_u16; u32: read_u32, write_u32; }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn functions_are_read_from_the_kernels_files() {
        let folder = tempfile::tempdir().unwrap();
        let function = folder.path().join("0000:00:1f.2");
        std::fs::create_dir_all(&function).unwrap();
        let mut config = [0; 64];
        config[..4].copy_from_slice(&[0x86, 0x80, 0x22, 0x29]);
        config[8..12].copy_from_slice(&[2, 1, 6, 1]);
        std::fs::write(function.join("config"), config).unwrap();
        std::os::unix::fs::symlink("../../drivers/ahci", function.join("driver")).unwrap();
        std::fs::create_dir(folder.path().join("no address")).unwrap();
        let found = this_machine(folder.path()).unwrap();
        let [(address, identity, Some(driver))] = &found[..] else { panic!("{found:?}") };
        let line = describe(*address, identity, Some(driver.clone()), &PciIds::default()).line();
        let expected = "0000:00:1f.2 8086:2922 010601: vendor 8086 device 2922 [driver: ahci] \
                        [kernel: ahci]";
        assert_eq!(line, expected);
        assert!(this_machine(Path::new("/nonexistent")).unwrap().is_empty());
    }
}
