//! How drivers are told.

use super::rig::{DISK_BYTES, connected, pattern, started};
use crate::Violation;
use outboard_block::{Unit, UnitState};
use outboard_virtio::spec::blk::{IN, STATUS_OK};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::{GET_CONFIG, SET_BACKEND_REQ_FD};
use outboard_virtio::spec::vhost_user::{ConfigPart, Header, backend_request};
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use std::os::fd::AsFd;
use zerocopy::{FromBytes, IntoBytes};

#[test]
fn whoever_makes_its_call_block_is_disconnected_and_others_are_served_on() {
    let (mut front, mut back) = started(Features::VERSION_1, pattern(1, DISK_BYTES));
    let (mut other, mut others) = started(Features::VERSION_1, pattern(2, DISK_BYTES));
    front.queue.listen();
    front.call.take();
    rustix::io::write(&front.call, &(u64::MAX - 1).to_ne_bytes()).unwrap();
    let flags = fcntl_getfl(&front.call).unwrap();
    fcntl_setfl(&front.call, flags - OFlags::NONBLOCK).unwrap();
    front.request(0, IN, 0, Err(512));
    front.publish();
    // If it were not freed this would never end.
    for _ in 0..10 {
        back.turn();
    }
    assert_eq!(back.session.closed(), Some(Violation::CallBlocks));
    let read = other.one(&mut others, IN, 0, Err(512));
    assert_eq!(read, (STATUS_OK, pattern(2, DISK_BYTES)[..512].to_vec()));
}

#[test]
fn a_disk_that_grows_is_told_of() {
    let (front, mut back) = connected(Features::VERSION_1, pattern(1, DISK_BYTES));
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
    front.send(SET_BACKEND_REQ_FD, &[], &[theirs.as_fd()]);
    back.turn();
    let told = || {
        let mut bytes = [0; 64];
        let (_, count) = recv(&ours, &mut bytes, RecvFlags::DONTWAIT).ok()?;
        Some(Header::read_from_bytes(&bytes[..count]).unwrap())
    };
    let capacity = |back: &mut _| {
        let part = ConfigPart { offset: 0.into(), bytes: 8.into(), flags: 0.into() };
        let answer = front.ask(back, GET_CONFIG, &[part.as_bytes(), &[0; 8]].concat());
        u64::from_le_bytes(answer[size_of::<ConfigPart>()..].try_into().unwrap())
    };
    let sectors = DISK_BYTES as u64 / 512;
    assert_eq!(capacity(&mut back), sectors);
    assert!(told().is_none(), "nothing has changed");
    let disk = back.session.disk();
    let info = back.disks.info(disk).unwrap();
    let mut geometry = info.geometry;
    geometry.sectors = 2 * sectors;
    let (state, generation) = (UnitState::Ready, info.generation);
    let unit = Unit { state, generation, geometry, identity: info.identity, ..Unit::UNKNOWN };
    back.shared.lock().unwrap().edits.push((0, unit));
    for _ in 0..3 {
        back.turn();
    }
    let header = told().expect("it is told");
    assert_eq!(header.request.get(), backend_request::CONFIG_CHANGE_MSG);
    assert_eq!((header.flags.get(), header.bytes.get()), (Header::VERSION, 0));
    assert!(told().is_none(), "it is told once");
    assert_eq!(capacity(&mut back), 2 * sectors);
}
