//! The catalogue of faults: everything that the models can do wrong, each with a name.

mod ahci;
mod virtio;

pub use ahci::Fault;
pub use virtio::VirtioFault;

use core::fmt;
use core::hash::Hash;
use core::str::FromStr;
use outboard_hw::Instant;

/// What a fault may cost, with a driver that does all that can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cost {
    /// Time: every request still ends well.
    Nothing,
    /// The request that it strikes.
    Request,
    /// A request fails if such faults hit it as often as it is tried.
    Retries,
    /// The sectors that are damaged, and no others.
    Sectors,
    /// What was acknowledged and not flushed; the next flush says so.
    Cache,
    /// The disk: it goes, or comes back as another.
    Disk,
    /// The HBA, with all its disks.
    Controller,
}

/// The faults of one kind of device.
pub trait FaultKind:
    Copy
    + Eq
    + Ord
    + Hash
    + fmt::Debug
    + fmt::Display
    + FromStr<Err = UnknownFault>
    + Send
    + Sync
    + 'static
{
    /// All of them.
    const ALL: &'static [Self];

    /// Its name, as in reports.
    fn name(self) -> &'static str;

    /// What happens, in a sentence without its full stop.
    fn meaning(self) -> &'static str;

    /// What it may cost.
    fn cost(self) -> Cost;

    /// Where it is among all.
    fn number(self) -> usize;
}

/// Makes the faults of a kind of device: for each its meaning, its name and its cost.
macro_rules! faults {
    ($(#[doc = $about:literal])* $kind:ident;
     $($(#[doc = $doc:literal])* $fault:ident $name:literal $cost:ident;)*) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum $kind {
            $($(#[doc = $doc])* $fault,)*
        }

        impl $kind {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$fault,)*];

            /// Its name, as in reports.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$fault => $name,)* }
            }

            /// What happens, in a sentence without its full stop.
            pub fn meaning(self) -> &'static str {
                let said = match self { $(Self::$fault => concat!($($doc,)*),)* };
                said.trim().trim_end_matches('.')
            }

            /// What it may cost.
            pub const fn cost(self) -> Cost {
                match self { $(Self::$fault => Cost::$cost,)* }
            }
        }

        impl $crate::fault::FaultKind for $kind {
            const ALL: &'static [Self] = Self::ALL;

            fn name(self) -> &'static str {
                self.name()
            }

            fn meaning(self) -> &'static str {
                self.meaning()
            }

            fn cost(self) -> Cost {
                self.cost()
            }

            fn number(self) -> usize {
                self as usize
            }
        }

        impl core::fmt::Display for $kind {
            fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl core::str::FromStr for $kind {
            type Err = $crate::fault::UnknownFault;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut all = Self::ALL.iter().copied();
                all.find(|fault| fault.name() == text).ok_or($crate::fault::UnknownFault)
            }
        }
    };
}

use faults;

/// There is no fault of that name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no fault of that name; `outboard sim --list` names them all")]
pub struct UnknownFault;

/// A fault that struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Struck<F = Fault> {
    /// When.
    pub at: Instant,
    /// At which port; those of the HBA are counted at the port that they were drawn for. Devices
    /// without ports have port 0.
    pub port: u8,
    /// Behind which port of a multiplier, if it concerns only the device there.
    pub behind: Option<u8>,
    /// What.
    pub fault: F,
    /// The sector that it damaged.
    pub lba: Option<u64>,
}

/// How often each fault has struck.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultCounts<F = Fault>(Vec<u64>, core::marker::PhantomData<F>);

impl<F: FaultKind> Default for FaultCounts<F> {
    fn default() -> Self {
        Self(vec![0; F::ALL.len()], core::marker::PhantomData)
    }
}

impl<F: FaultKind> FaultCounts<F> {
    /// Counts one more.
    pub fn add(&mut self, fault: F) {
        self.0[fault.number()] += 1;
    }

    /// Adds all that another has.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(&other.0).for_each(|(mine, theirs)| *mine += theirs);
    }

    /// How often one has struck.
    pub fn of(&self, fault: F) -> u64 {
        self.0[fault.number()]
    }

    /// How many have struck in all.
    pub fn total(&self) -> u64 {
        self.0.iter().sum()
    }

    /// Each fault with its count.
    pub fn iter(&self) -> impl Iterator<Item = (F, u64)> {
        F::ALL.iter().copied().zip(self.0.iter().copied())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<F: FaultKind>() {
        assert!(F::ALL.len() >= 60, "{}", F::ALL.len());
        let names: std::collections::BTreeSet<_> = F::ALL.iter().map(|f| f.name()).collect();
        assert_eq!(names.len(), F::ALL.len());
        assert!(F::ALL.iter().all(|f| f.meaning().len() > 10 && !f.meaning().ends_with('.')));
        for (index, fault) in F::ALL.iter().enumerate() {
            assert_eq!((fault.number(), fault.name().parse()), (index, Ok(*fault)));
        }
    }

    #[test]
    fn there_are_many_and_each_has_a_name_of_its_own() {
        check::<Fault>();
        check::<VirtioFault>();
    }
}
