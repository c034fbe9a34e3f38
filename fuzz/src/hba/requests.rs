//! What is asked of the driver.

use super::device::Handle;
use crate::input::Input;
use crate::ledger::Ledger;
use outboard_ahci::Hba;
use outboard_block::manage::{LinkPower, Management, Password, Power, SelfTest};
use outboard_block::{BlockDriver, Durability, Operation, Request, UnitId};
use outboard_hw::dma::{Constraints, SgList};

/// The most bytes that are put into one piece of memory.
const MAX_PIECE: usize = 128 << 10;

/// Submits what a step asks for.
pub(super) fn submit(
    ledger: &mut Ledger,
    kind: u8,
    small: u8,
    input: &mut Input<'_>,
    driver: &mut Hba<Handle>,
) {
    let port = u16::from(small & 1);
    let many = if small & 2 == 0 { 1 } else { 4 };
    let operand = input.byte();
    for index in 0..many {
        let lba = u64::from(operand) + index;
        let request = match kind {
            5 => Some(transfer(driver, port, Operation::Read, lba, 1, 1)),
            6 => {
                let durability =
                    if operand & 1 == 0 { Durability::Cached } else { Durability::Durable };
                Some(transfer(driver, port, Operation::Write(durability), lba, 1, 1))
            }
            7 if operand & 1 == 0 => Some(Request::flush()),
            7 => Some(Request::discard(lba, 1 + lba * 997)),
            8 => Some(odd(driver, port, operand, input)),
            _ => Some(manage(driver, operand, input)),
        };
        let Some(request) = request else { return };
        ledger.submit(driver, UnitId(port), request);
    }
}

/// A transfer of `sectors`, whose memory is in that many `pieces`.
fn transfer(
    driver: &Hba<Handle>,
    unit: u16,
    operation: Operation,
    lba: u64,
    sectors: u64,
    pieces: usize,
) -> Request {
    let each = driver.unit(UnitId(unit)).map_or(512, |unit| unit.geometry.sector_bytes as usize);
    let bytes = (each * sectors as usize).clamp(512, MAX_PIECE) / pieces;
    let mut data = SgList::EMPTY;
    for _ in 0..pieces {
        if let Ok(buffer) = driver.dma().allocate(bytes, &Constraints::NONE) {
            data.push(buffer, 0..bytes);
        }
    }
    Request { operation, lba, sectors, data }
}

/// A transfer that is longer, in pieces, or makes no sense.
fn odd(driver: &Hba<Handle>, unit: u16, operand: u8, input: &mut Input<'_>) -> Request {
    let operation = match operand & 1 {
        0 => Operation::Read,
        _ => Operation::Write(Durability::Durable),
    };
    let sectors = 1 << (operand >> 1 & 7);
    let pieces = 1 + usize::from(operand >> 4 & 7);
    let lba = match input.byte() {
        255 => u64::MAX,
        254 => 1 << 48,
        lba => lba.into(),
    };
    let mut request = transfer(driver, unit, operation, lba, sectors, pieces);
    if operand & 0x80 != 0 {
        request.sectors = input.half().into();
    }
    request
}

/// Management, with a password where one is wanted.
fn manage(driver: &Hba<Handle>, operand: u8, input: &mut Input<'_>) -> Request {
    let on = operand & 0x80 != 0;
    let which = if on { Password::Master } else { Password::User };
    let tests = [SelfTest::Short, SelfTest::Extended, SelfTest::Conveyance, SelfTest::Abort];
    let powers = [Power::Active, Power::Idle, Power::Standby, Power::Sleep];
    let links = [LinkPower::Full, LinkPower::Partial, LinkPower::Slumber, LinkPower::DeviceSleep];
    let choice = usize::from(operand >> 5 & 3);
    let what = match operand & 0x1f {
        0 => Management::ReadHealth,
        1 => Management::SetHealth(on),
        2 => Management::SelfTest(tests[choice]),
        3 => Management::ReadPower,
        4 => Management::SetPower(powers[choice]),
        5 => Management::SetStandbyTimer(input.half().into()),
        6 => Management::SetPowerLevel(input.byte()),
        7 => Management::SetWriteCache(on),
        8 => Management::SetLookAhead(on),
        9 => Management::Unlock(which),
        10 => Management::SetPassword { which, maximum: operand & 0x40 != 0 },
        11 => Management::DisablePassword(which),
        12 => Management::Erase { which, enhanced: operand & 0x40 != 0 },
        13 => Management::FreezeSecurity,
        14 => Management::ReadNativeCapacity,
        15 => Management::SetCapacity { sectors: input.half().into() },
        16 => Management::Eject,
        17 => Management::Load,
        18 => Management::LockMedium(on),
        19 => Management::Locate(on),
        20 => Management::FaultLight(on),
        _ => Management::SetLinkPower(links[choice]),
    };
    let mut request = Request::manage(what);
    if matches!(operand & 0x1f, 9..=12)
        && let Ok(buffer) = driver.dma().allocate(32, &Constraints::NONE)
    {
        request.data = SgList::single(buffer, 0..32);
    }
    request
}
