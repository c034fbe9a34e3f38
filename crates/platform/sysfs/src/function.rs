//! One PCI function, and who has it.

use crate::machine::{attribute, link_name, names, text};
use crate::{Machine, SysfsError};
use outboard_pci::{Address, Class, Identity};
use std::path::{Path, PathBuf};

/// The kernel's driver that hands functions to processes.
pub const VFIO_DRIVER: &str = "vfio-pci";

/// Where the kernel shows functions.
const DEVICES: &str = "/sys/bus/pci/devices";
/// Where it shows IOMMU groups.
const GROUPS: &str = "/sys/kernel/iommu_groups";

/// A PCI function of the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Function {
    /// Where it sits.
    pub address: Address,
    /// What it says it is. The kernel read this when it found the function: asking does not wake
    /// a function that sleeps.
    pub identity: Identity,
    /// The kernel's driver that has it.
    pub driver: Option<String>,
    /// The only driver that may have it, if one was named (`driver_override`).
    pub driver_override: Option<String>,
    /// Its IOMMU group: the functions that the IOMMU cannot keep apart. `None` without an IOMMU.
    pub group: Option<u32>,
    /// In which ways the kernel can reset it, the best first; none if it cannot.
    pub reset_methods: Vec<String>,
    /// The NUMA node that it is nearest to, if the machine has several.
    pub numa_node: Option<u32>,
    /// Its power state, such as `D0`.
    pub power_state: Option<String>,
    /// What modules are found by.
    pub modalias: Option<String>,
    /// Its name below `/dev/vfio/devices`, where the kernel has these and it is bound.
    pub vfio_device: Option<String>,
}

impl Function {
    /// Whether it is a bridge to another PCI bus. Those cannot be handed to a process, and need
    /// not: the kernel drives them beside processes that have what is behind them.
    pub const fn is_pci_bridge(&self) -> bool {
        is_pci_bridge(self.identity.class)
    }

    /// Whether it is a bridge of any kind: to other PCI buses, from the host, to ISA.
    pub const fn is_bridge(&self) -> bool {
        self.identity.class.base == 0x06
    }

    /// Whether it is ready to be handed to a process.
    pub fn is_on_vfio(&self) -> bool {
        self.driver.as_deref() == Some(VFIO_DRIVER)
    }

    /// Whether processes cannot have the other functions of its group while this one's driver has
    /// it: two masters of one address space would see each other's memory. Drivers that never use
    /// the function's DMA are no obstacle.
    pub fn keeps_group(&self) -> bool {
        const HARMLESS: [&str; 2] = ["pcieport", "pci-stub"];
        self.driver.as_deref().is_some_and(|driver| {
            !HARMLESS.contains(&driver)
                && !driver.starts_with("vfio")
                && !driver.ends_with("vfio_pci")
        })
    }
}

/// Bridges from PCI to PCI, to CardBus, and semi-transparent ones (PCI appendix D).
const fn is_pci_bridge(class: Class) -> bool {
    class.base == 0x06 && matches!(class.sub, 0x04 | 0x07 | 0x09)
}

impl Machine {
    /// All functions, by address; none if the machine has no PCI.
    pub fn functions(&self) -> Result<Vec<Function>, SysfsError> {
        self.functions_in(&self.path(DEVICES))
    }

    /// The function at an address.
    ///
    /// # Errors
    ///
    /// [`SysfsError::NoFunction`] if there is none.
    pub fn function(&self, address: Address) -> Result<Function, SysfsError> {
        let folder = self.function_folder(address);
        read(&folder, address)?.ok_or(SysfsError::NoFunction(address))
    }

    /// The functions of an IOMMU group, by address.
    pub fn group_members(&self, group: u32) -> Result<Vec<Function>, SysfsError> {
        self.functions_in(&self.path(GROUPS).join(group.to_string()).join("devices"))
    }

    /// The numbers of all IOMMU groups; none without an IOMMU that is in use.
    pub fn groups(&self) -> Result<Vec<u32>, SysfsError> {
        let names = names(&self.path(GROUPS))?;
        let mut groups: Vec<u32> = names.iter().filter_map(|name| name.parse().ok()).collect();
        groups.sort_unstable();
        Ok(groups)
    }

    /// Whether a group is one that VFIO makes up for functions which no IOMMU confines.
    pub fn is_unconfined(&self, group: u32) -> bool {
        let folder = self.path(GROUPS).join(group.to_string());
        attribute(&folder, "name").as_deref() == Some("vfio-noiommu")
    }

    /// The folder that the kernel shows a function in.
    pub fn function_folder(&self, address: Address) -> PathBuf {
        self.path(DEVICES).join(address.to_string())
    }

    /// The functions that a folder names; others that it may have are no PCI functions.
    fn functions_in(&self, folder: &Path) -> Result<Vec<Function>, SysfsError> {
        let mut functions = Vec::new();
        for name in names(folder)? {
            if let Ok(address) = name.parse() {
                functions.extend(read(&self.function_folder(address), address)?);
            }
        }
        functions.sort_by_key(|function| function.address);
        Ok(functions)
    }
}

/// Reads what `folder` says of a function; `None` if it is not there any more.
fn read(folder: &Path, address: Address) -> Result<Option<Function>, SysfsError> {
    let Some(identity) = identity(folder)? else { return Ok(None) };
    let driver_override = attribute(folder, "driver_override").filter(|name| name != "(null)");
    let methods = attribute(folder, "reset_method").unwrap_or_default();
    // VFIO names each function, also where it makes no files of these names.
    let named = folder.join("vfio-dev");
    let has_file = |name: &String| named.join(name).join("dev").exists();
    let vfio_device = names(&named)?.into_iter().find(has_file);
    Ok(Some(Function {
        address,
        identity,
        driver: link_name(&folder.join("driver")),
        driver_override,
        group: link_name(&folder.join("iommu_group")).and_then(|name| name.parse().ok()),
        reset_methods: methods.split_whitespace().map(str::to_owned).collect(),
        // -1 is a machine with one node.
        numa_node: attribute(folder, "numa_node").and_then(|node| node.parse().ok()),
        power_state: attribute(folder, "power_state"),
        modalias: attribute(folder, "modalias"),
        vfio_device,
    }))
}

fn identity(folder: &Path) -> Result<Option<Identity>, SysfsError> {
    let number = |name: &'static str| -> Result<Option<u32>, SysfsError> {
        let path = folder.join(name);
        let Some(text) = text(&path)? else { return Ok(None) };
        match text.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(SysfsError::Content { path, text, expected: "a number such as 0x8086" }),
        }
    };
    let (Some(vendor), Some(device), Some(class)) =
        (number("vendor")?, number("device")?, number("class")?)
    else {
        return Ok(None);
    };
    let [_, base, sub, interface] = class.to_be_bytes();
    let class = Class { base, sub, interface };
    let subsystem = number("subsystem_vendor")?.zip(number("subsystem_device")?);
    Ok(Some(Identity {
        vendor: vendor as u16,
        device: device as u16,
        subsystem: subsystem
            .filter(|_| !is_pci_bridge(class))
            .map(|(vendor, device)| (vendor as u16, device as u16)),
        class,
        revision: number("revision")?.unwrap_or(0) as u8,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::MadeUp;

    #[test]
    fn functions_are_read_with_all_that_is_known_of_them() {
        let made = MadeUp::new();
        made.function("0000:00:1f.2", 0x8086_2922, 0x01_06_01);
        made.driver("0000:00:1f.2", "ahci");
        made.group("0000:00:1f.2", 7);
        made.attribute("0000:00:1f.2", "numa_node", "-1");
        made.attribute("0000:00:1f.2", "reset_method", "flr bus");
        made.attribute("0000:00:1f.2", "power_state", "D0");
        made.function("0000:00:02.0", 0x8086_10d3, 0x02_00_00);
        made.attribute("0000:00:02.0", "driver_override", "vfio-pci");
        made.attribute("0000:00:02.0", "numa_node", "1");
        let functions = made.machine().functions().unwrap();
        let [nic, hba] = &functions[..] else { panic!("{functions:?}") };
        assert_eq!(hba.address.to_string(), "0000:00:1f.2");
        assert_eq!((hba.identity.vendor, hba.identity.device), (0x8086, 0x2922));
        assert_eq!(hba.identity.class, Class { base: 1, sub: 6, interface: 1 });
        assert_eq!(hba.identity.subsystem, Some((0x1af4, 0x1100)));
        assert_eq!(hba.identity.revision, 2);
        assert_eq!(hba.driver.as_deref(), Some("ahci"));
        assert_eq!(hba.driver_override, None);
        assert_eq!((hba.group, hba.numa_node), (Some(7), None));
        assert_eq!(hba.reset_methods, ["flr", "bus"]);
        assert_eq!(hba.power_state.as_deref(), Some("D0"));
        assert_eq!((nic.driver.clone(), nic.group, nic.numa_node), (None, None, Some(1)));
        assert_eq!(nic.driver_override.as_deref(), Some("vfio-pci"));
        assert!(nic.reset_methods.is_empty());
    }

    #[test]
    fn a_name_by_which_vfio_makes_no_file_is_none() {
        let made = MadeUp::new();
        made.function("0000:00:1f.2", 0x8086_2922, 0x01_06_01);
        let name = || made.machine().functions().unwrap().remove(0).vfio_device;
        assert_eq!(name(), None);
        made.attribute("0000:00:1f.2", "vfio-dev/vfio3/uevent", "");
        assert_eq!(name(), None, "as in kernels without CONFIG_VFIO_DEVICE_CDEV");
        made.attribute("0000:00:1f.2", "vfio-dev/vfio3/dev", "244:3");
        assert_eq!(name().as_deref(), Some("vfio3"));
    }

    #[test]
    fn an_address_where_nothing_is_is_an_error_that_says_where_to_look() {
        let made = MadeUp::new();
        let error = made.machine().function(Address::new(0, 3, 0, 0)).unwrap_err().to_string();
        assert_eq!(
            error,
            "this machine has no PCI function at 0000:03:00.0. `outboard status --all` lists \
             those that it has"
        );
        assert!(made.machine().functions().unwrap().is_empty());
    }

    #[test]
    fn groups_have_their_members() {
        let made = MadeUp::new();
        for address in ["0000:00:1f.0", "0000:00:1f.2", "0000:00:02.0"] {
            made.function(address, 0x8086_2922, 0x01_06_01);
        }
        made.group("0000:00:1f.2", 7);
        made.group("0000:00:1f.0", 7);
        made.group("0000:00:02.0", 11);
        let machine = made.machine();
        assert_eq!(machine.groups().unwrap(), [7, 11]);
        let members = machine.group_members(7).unwrap();
        let members: Vec<_> = members.iter().map(|member| member.address.to_string()).collect();
        assert_eq!(members, ["0000:00:1f.0", "0000:00:1f.2"]);
    }

    #[test]
    fn a_file_that_says_something_else_is_an_error_that_names_it() {
        let made = MadeUp::new();
        made.function("0000:00:1f.2", 0x8086_2922, 0x01_06_01);
        made.attribute("0000:00:1f.2", "class", "nonsense");
        let error = made.machine().functions().unwrap_err().to_string();
        assert!(error.contains("/class says \"nonsense\", where a number"), "{error}");
    }

    #[test]
    fn only_drivers_that_use_dma_keep_a_group() {
        let made = MadeUp::new();
        let keeps = |driver: Option<&str>| {
            made.function("0000:00:01.0", 0x1af4_1000, 0x02_00_00);
            driver.inspect(|driver| made.driver("0000:00:01.0", driver));
            made.machine().function(Address::new(0, 0, 1, 0)).unwrap().keeps_group()
        };
        assert!(!keeps(None));
        for driver in ["vfio-pci", "mlx5_vfio_pci", "pcieport", "pci-stub"] {
            assert!(!keeps(Some(driver)), "{driver}");
        }
        for driver in ["ahci", "e1000e", "lpc_ich"] {
            assert!(keeps(Some(driver)), "{driver}");
        }
    }
}
