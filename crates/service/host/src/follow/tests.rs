//! Disks that come and go, in a server without clients.

#[path = "../../../../class/block/tests/support/memory.rs"]
mod memory;

use crate::server::{Hosted, Platform, Server};
use memory::Memory;
use outboard_block::{Unit, UnitState};
use outboard_linux::SharedMemory;
use outboard_ninep::server::Owner;
use rustix::fd::BorrowedFd;
use std::error::Error;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};

struct Nowhere;

impl Platform for Nowhere {
    fn ended(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    fn check(&mut self) -> Result<(), Box<dyn Error + Send + Sync>> {
        Ok(())
    }
}

/// Whether a disk's place is taken from the next turns on.
fn plug(shared: &Arc<Mutex<memory::Shared>>, place: u16, unit: &Unit, state: UnitState) {
    let unit = Unit { state, generation: unit.generation + 1, ..unit.clone() };
    shared.lock().unwrap().edits.push((place, unit));
}

#[test]
fn disks_that_come_have_a_socket_and_those_that_go_have_none() {
    let folder = tempfile::tempdir().unwrap();
    let (_, arena) = SharedMemory::for_model("test", 1 << 20).unwrap();
    let driver = Memory::new(vec![0; 65536], 8, 16, &arena).places(2);
    let shared = driver.shared();
    let unit = outboard_block::BlockDriver::unit(&driver, outboard_block::UnitId(0)).unwrap();
    let unit = unit.clone();
    let (driver, interrupts) = (Box::new(driver), Box::new(()));
    let hosted = vec![Hosted { driver, interrupts, options: Vec::new() }];
    let owner = Owner { name: "me".into(), user: 0, group: 0 };
    let mut server = Server::new(Nowhere, hosted, 1 << 20, owner).unwrap();
    let turns = |server: &mut Server<Nowhere>| {
        for _ in 0..20 {
            server.turn(Some(outboard_hw::Instant::ORIGIN)).unwrap();
        }
    };
    turns(&mut server);
    let sockets = ["sdC0.sock", "sdC1.sock"].map(|name| folder.path().join(name));
    let exported = server.export_all(folder.path()).unwrap();
    assert_eq!(exported, [("sdC0".to_owned(), sockets[0].clone())]);
    turns(&mut server);
    assert!(sockets[0].exists() && !sockets[1].exists());
    plug(&shared, 1, &unit, UnitState::Ready);
    turns(&mut server);
    let _client = UnixStream::connect(&sockets[1]).unwrap();
    turns(&mut server);
    // It goes while somebody uses it, and comes back.
    plug(&shared, 1, &unit, UnitState::Absent);
    turns(&mut server);
    assert!(sockets[0].exists() && !sockets[1].exists());
    let again = Unit { generation: unit.generation + 1, ..unit };
    plug(&shared, 1, &again, UnitState::Ready);
    turns(&mut server);
    assert!(UnixStream::connect(&sockets[1]).is_ok());
    drop(server);
    assert!(!sockets[0].exists() && !sockets[1].exists());
}
