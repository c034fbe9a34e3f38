//! What the loop waits for.

/// Which descriptor is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ready {
    Signal,
    Platform,
    News,
    Requests,
    Interrupt(usize),
    Listener(usize),
    Connection(u32),
    /// Somebody connects to an exported disk.
    Export(usize),
    /// The client of an exported disk has something.
    Machine(usize),
    CardInterrupt(usize),
    /// Somebody connects to a network card.
    CardDoor(usize),
    /// The client of a network card has something.
    CardClient(usize),
}

impl Ready {
    /// The number that the poller knows it by.
    pub(crate) fn number(self) -> u64 {
        let (kind, index) = match self {
            Self::Signal => (0, 0),
            Self::Platform => (1, 0),
            Self::Interrupt(index) => (2, index as u64),
            Self::Listener(index) => (3, index as u64),
            Self::Connection(id) => (4, u64::from(id)),
            Self::News => (5, 0),
            Self::Requests => (6, 0),
            Self::Export(index) => (7, index as u64),
            Self::Machine(index) => (8, index as u64),
            Self::CardInterrupt(index) => (9, index as u64),
            Self::CardDoor(index) => (10, index as u64),
            Self::CardClient(index) => (11, index as u64),
        };
        kind << 32 | index
    }

    /// What a number of [`number`](Self::number)'s stands for.
    pub(crate) const fn of(number: u64) -> Self {
        let index = number as u32;
        match number >> 32 {
            0 => Self::Signal,
            1 => Self::Platform,
            2 => Self::Interrupt(index as usize),
            3 => Self::Listener(index as usize),
            4 => Self::Connection(index),
            5 => Self::News,
            6 => Self::Requests,
            7 => Self::Export(index as usize),
            8 => Self::Machine(index as usize),
            9 => Self::CardInterrupt(index as usize),
            10 => Self::CardDoor(index as usize),
            _ => Self::CardClient(index as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_stand_for_what_they_were_made_of() {
        let many = [Ready::Interrupt(7), Ready::Listener(3), Ready::Connection(u32::MAX)];
        let exported = [Ready::Export(5), Ready::Machine(1)];
        let cards = [Ready::CardInterrupt(2), Ready::CardDoor(0), Ready::CardClient(4)];
        let single = [Ready::Signal, Ready::Platform, Ready::News, Ready::Requests];
        for ready in many.into_iter().chain(exported).chain(cards).chain(single) {
            assert_eq!(Ready::of(ready.number()), ready);
        }
    }
}
