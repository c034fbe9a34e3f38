//! Names of PCI devices, from the list that most systems have (pci.ids).

use std::collections::HashMap;
use std::path::Path;

/// Where systems keep the list.
const PLACES: [&str; 3] =
    ["/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids", "/usr/share/pci.ids"];

/// Names by number; empty if the system has no list.
#[derive(Debug, Default)]
pub(crate) struct PciIds {
    vendors: HashMap<u16, String>,
    devices: HashMap<(u16, u16), String>,
    classes: HashMap<(u8, u8), String>,
}

impl PciIds {
    /// Reads the system's list, if it has one.
    pub(crate) fn load() -> Self {
        let text = PLACES.iter().find_map(|place| std::fs::read(Path::new(place)).ok());
        text.map(|text| Self::parse(&String::from_utf8_lossy(&text))).unwrap_or_default()
    }

    /// Reads a list: vendors at the left edge, their devices behind a tab; classes after `C`,
    /// their subclasses behind a tab. Two tabs are subsystems and interfaces, which are skipped.
    fn parse(text: &str) -> Self {
        enum Section {
            None,
            Vendor(u16),
            Class(u8),
        }
        let mut ids = Self::default();
        let mut section = Section::None;
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let indent = line.len() - line.trim_start_matches('\t').len();
            let Some((number, name)) = line.trim_start_matches('\t').split_once("  ") else {
                continue;
            };
            let name = name.to_owned();
            match (indent, &section) {
                (0, _) => match number.strip_prefix("C ") {
                    Some(class) => {
                        section = hex8(class).map_or(Section::None, Section::Class);
                    }
                    None => {
                        let vendor = u16::from_str_radix(number, 16).ok();
                        section = vendor.map_or(Section::None, Section::Vendor);
                        vendor.map(|vendor| ids.vendors.insert(vendor, name));
                    }
                },
                (1, Section::Vendor(vendor)) => {
                    if let Ok(device) = u16::from_str_radix(number, 16) {
                        ids.devices.insert((*vendor, device), name);
                    }
                }
                (1, Section::Class(class)) => {
                    if let Some(sub) = hex8(number) {
                        ids.classes.insert((*class, sub), name);
                    }
                }
                _ => {}
            }
        }
        ids
    }

    /// A device's name, as far as it is known.
    pub(crate) fn device(&self, vendor: u16, device: u16) -> String {
        let vendor_name = self.vendors.get(&vendor).map(String::as_str);
        match (vendor_name, self.devices.get(&(vendor, device))) {
            (Some(vendor), Some(device)) => format!("{vendor} {device}"),
            (Some(vendor), None) => format!("{vendor} device {device:04x}"),
            (None, _) => format!("vendor {vendor:04x} device {device:04x}"),
        }
    }

    /// A class's name, if it is known.
    pub(crate) fn class(&self, base: u8, sub: u8) -> Option<&str> {
        self.classes.get(&(base, sub)).map(String::as_str)
    }
}

fn hex8(text: &str) -> Option<u8> {
    u8::from_str_radix(text, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_by_number() {
        let ids = PciIds::parse(
            "# comment\n\n8086  Intel Corporation\n\t2922  82801IR SATA Controller\n\
             \t\t1af4 1100  QEMU Virtual Machine\n1af4  Red Hat, Inc.\n\
             C 01  Mass storage controller\n\t06  SATA controller\n\t\t01  AHCI 1.0\nxyz\n\tq  r\n",
        );
        assert_eq!(ids.device(0x8086, 0x2922), "Intel Corporation 82801IR SATA Controller");
        assert_eq!(ids.device(0x1af4, 0x1110), "Red Hat, Inc. device 1110");
        assert_eq!(ids.device(1, 2), "vendor 0001 device 0002");
        assert_eq!(ids.class(1, 6), Some("SATA controller"));
        assert_eq!(ids.class(2, 0), None);
    }
}
