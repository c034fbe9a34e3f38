//! Interrupts as drivers see them: a number of vectors of some kind.
//!
//! Waiting for an interrupt is the business of whoever runs the driver (an event loop, a kernel).
//! When vector `n` fires, it calls the driver's `interrupt(n)`.

/// How a function signals its interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InterruptKind {
    /// MSI-X: a table of messages, each with its own mask (PCI Local Bus 3.0, §6.8.2).
    MsiX,
    /// MSI: one message, or a power of two of consecutive ones (PCI Local Bus 3.0, §6.8.1).
    Msi,
    /// A shared, level-triggered pin. The runner must re-arm it after the driver has serviced it.
    Pin,
}

impl InterruptKind {
    /// Whether both are messages, or both pins: what someone who asks for one of them means.
    pub const fn is_like(self, other: Self) -> bool {
        matches!(self, Self::Pin) == matches!(other, Self::Pin)
    }
}

/// How many vectors a driver can make use of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VectorRange {
    /// It cannot run with fewer; at least 1.
    pub min: u16,
    /// It has no use for more.
    pub max: u16,
    /// Which kinds will do.
    pub kinds: InterruptKinds,
}

/// Which kinds of interrupts work for a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InterruptKinds {
    /// All that it says it has.
    #[default]
    Any,
    /// Only the pin, whatever it says.
    Pin,
}

impl InterruptKinds {
    /// Whether a kind is among them.
    pub const fn allow(self, kind: InterruptKind) -> bool {
        matches!((self, kind), (Self::Any, _) | (Self::Pin, InterruptKind::Pin))
    }
}

impl VectorRange {
    /// Exactly one vector.
    pub const ONE: Self = Self { min: 1, max: 1, kinds: InterruptKinds::Any };
    /// The pin, for functions whose messages do not work.
    pub const ONE_PIN: Self = Self { min: 1, max: 1, kinds: InterruptKinds::Pin };
}

/// The vectors that a driver was given, numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vectors {
    /// How they are signalled.
    pub kind: InterruptKind,
    /// How many there are.
    pub count: u16,
}
