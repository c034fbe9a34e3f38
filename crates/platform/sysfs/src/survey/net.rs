//! Network interfaces, and whether the machine is reached through them.

use super::Use;
use crate::machine::{attribute, link_name, names, text};
use crate::{Machine, SysfsError};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// Flag of an interface: it is up (netdevice(7)).
const IFF_UP: u32 = 1 << 0;
/// Flags of a route: it is usable; it refuses (`linux/route.h`).
const RTF_UP: u32 = 1 << 0;
const RTF_REJECT: u32 = 1 << 9;

#[derive(Debug)]
struct Interface {
    folder: PathBuf,
    up: bool,
    /// The bridge, bond or the like that it is part of.
    master: Option<String>,
    /// The interfaces that are made of it.
    uppers: Vec<String>,
}

/// All network interfaces, and which of them have routes.
#[derive(Debug)]
pub(super) struct Network {
    interfaces: BTreeMap<String, Interface>,
    default_routes: BTreeSet<String>,
    /// Those with other routes or addresses, but for the ones that every link has.
    configured: BTreeSet<String>,
}

impl Network {
    pub(super) fn read(machine: &Machine) -> Result<Self, SysfsError> {
        let class = machine.path("/sys/class/net");
        let mut interfaces = BTreeMap::new();
        for name in names(&class)? {
            let Ok(folder) = class.join(&name).canonicalize() else { continue };
            let flags =
                attribute(&folder, "flags").and_then(|text| hex(text.trim_start_matches("0x")));
            let uppers = names(&folder)?.into_iter();
            let interface = Interface {
                up: flags.unwrap_or(0) & IFF_UP != 0,
                master: link_name(&folder.join("master")),
                uppers: uppers
                    .filter_map(|n| n.strip_prefix("upper_").map(str::to_owned))
                    .collect(),
                folder,
            };
            interfaces.insert(name, interface);
        }
        let (default_routes, configured) = (BTreeSet::new(), BTreeSet::new());
        let mut this = Self { interfaces, default_routes, configured };
        this.read_routes(&text(&machine.path("/proc/net/route"))?.unwrap_or_default());
        this.read_routes6(&text(&machine.path("/proc/net/ipv6_route"))?.unwrap_or_default());
        this.read_addresses6(&text(&machine.path("/proc/net/if_inet6"))?.unwrap_or_default());
        Ok(this)
    }

    /// A heading; then interface, destination, gateway, flags, references, uses, metric, mask.
    fn read_routes(&mut self, routes: &str) {
        for line in routes.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [name, destination, _, flags, _, _, _, mask, ..] = fields[..] else { continue };
            if is_used(flags) {
                let is_default = hex(destination) == Some(0) && hex(mask) == Some(0);
                self.note(name, is_default);
            }
        }
    }

    /// Destination, its length, source, its length, gateway, metric, references, uses, flags,
    /// interface. Multicast and link-local routes are made with every link.
    fn read_routes6(&mut self, routes: &str) {
        for line in routes.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            let [destination, length, _, _, _, _, _, _, flags, name] = fields[..] else { continue };
            let is_own = destination.starts_with("ff") || destination.starts_with("fe8");
            if is_used(flags) && !is_own && name != "lo" {
                let is_default = length == "00" && destination.bytes().all(|digit| digit == b'0');
                self.note(name, is_default);
            }
        }
    }

    /// Address, index, length of the prefix, scope, flags, interface. Scope 20h is the link.
    fn read_addresses6(&mut self, addresses: &str) {
        for line in addresses.lines() {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if let [_, _, _, "00", _, name] = fields[..] {
                self.note(name, false);
            }
        }
    }

    fn note(&mut self, name: &str, is_default: bool) {
        let set = if is_default { &mut self.default_routes } else { &mut self.configured };
        set.insert(name.to_owned());
    }

    /// The interfaces of the function that is shown in `folder`.
    pub(super) fn interfaces_below(&self, folder: &Path) -> impl Iterator<Item = &str> {
        let below = self.interfaces.iter().filter(move |(_, one)| one.folder.starts_with(folder));
        below.map(|(name, _)| name.as_str())
    }

    /// What an interface is in use for, itself or through those that are made of it: the gravest
    /// use only.
    pub(super) fn uses(&self, interface: &str, uses: &mut Vec<Use>) {
        let Some(own) = self.interfaces.get(interface) else { return };
        let over = self.with_uppers(interface);
        let find = |set: &BTreeSet<String>| over.iter().find(|name| set.contains(**name)).copied();
        let through = |name: &str| (name != interface).then(|| name.to_owned());
        let interface = interface.to_owned();
        if let Some(name) = find(&self.default_routes) {
            uses.push(Use::DefaultRoute { interface, through: through(name) });
        } else if let Some(name) = find(&self.configured).filter(|_| own.up) {
            uses.push(Use::Configured { interface, through: through(name) });
        } else if let Some(of) = own.master.clone().filter(|_| own.up) {
            uses.push(Use::Part { interface, of });
        }
    }

    /// An interface, then all that is made of it.
    fn with_uppers<'a>(&'a self, interface: &'a str) -> Vec<&'a str> {
        let mut found = vec![interface];
        let mut next = 0;
        while let Some(name) = found.get(next).copied() {
            next += 1;
            for upper in self.interfaces.get(name).into_iter().flat_map(|one| &one.uppers) {
                if !found.contains(&upper.as_str()) {
                    found.push(upper);
                }
            }
        }
        found
    }
}

/// Whether a route leads anywhere.
fn is_used(flags: &str) -> bool {
    hex(flags).is_some_and(|flags| flags & RTF_UP != 0 && flags & RTF_REJECT == 0)
}

fn hex(text: &str) -> Option<u32> {
    u32::from_str_radix(text, 16).ok()
}
