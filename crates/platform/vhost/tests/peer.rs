//! The driver on back ends that do what others do seldom: resume, resize, lie.

mod support;

use outboard_block::{BlockDriver, Durability, FailedReason, UnitId, UnitState};
use outboard_linux::now;
use outboard_vhost_front::{Trouble, VhostConfig, VhostError, VhostUser};
use outboard_virtio::BlkConfig;
use outboard_virtio::spec::blk::{GET_ID, OUT};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{
    Header, MAX_DESCRIPTORS, PROTOCOL_FEATURES, ProtocolFeatures, backend_request,
};
use rustix::fs::{MemfdFlags, memfd_create};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};
use support::peer::{Disk, Message, Peer, Twist};
use support::{Rig, exercise, noise, until};
use zerocopy::IntoBytes;

#[test]
fn a_back_end_that_takes_the_place_goes_on_with_what_is_in_flight() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let disk = Disk::new(noise(1, 1 << 20));
    let peer = Peer::honest(&socket, &disk);
    let mut rig = Rig::new(&socket);
    assert_eq!(rig.state(), UnitState::Ready, "{:?}", rig.events);
    disk.lock().unwrap().holds = true;
    for tag in 0..20 {
        let request = rig.write_of(tag * 8, &noise(tag, 4096), Durability::Cached);
        rig.submit(tag, request);
        if tag % 6 == 5 {
            rig.driver.kick(now());
        }
    }
    rig.driver.kick(now());
    until(|| disk.lock().unwrap().held == 20);
    drop(peer);
    rig.run_until(|rig| rig.state() == UnitState::Recovering);
    // What is accepted meanwhile is shown to the next one, too.
    let late = rig.read_of(0, 8);
    rig.submit(20, late);
    {
        let mut disk = disk.lock().unwrap();
        disk.holds = false;
        disk.carried_out.clear();
    }
    let peer = Peer::honest(&socket, &disk);
    for completion in rig.finish(21) {
        assert_eq!(completion.result, Ok(()));
    }
    assert_eq!(rig.counter("resumed"), 20, "{:?}", rig.events);
    assert_eq!((rig.counter("requeued"), rig.counter("failed")), (0, 0));
    let kept = disk.lock().unwrap();
    assert_eq!(kept.found, 20);
    // It was asked who it is before it was shown anything, and did nothing twice.
    assert_eq!(kept.carried_out[0], (GET_ID, 0));
    assert_eq!(kept.carried_out.iter().filter(|(kind, _)| *kind == OUT).count(), 20);
    for tag in 0..20usize {
        assert!(kept.content[tag * 4096..][..4096] == noise(tag as u64, 4096), "{tag}");
    }
    drop(kept);
    let content = disk.lock().unwrap().content.clone();
    let content = exercise(&mut rig, content, 2, |_| {});
    drop((rig, peer));
    assert!(disk.lock().unwrap().content == content);
}

#[test]
fn a_back_end_that_keeps_to_an_order_may_die_behind_half_of_what_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let disk = Disk::new(noise(6, 1 << 20));
    disk.lock().unwrap().features = Features::IN_ORDER;
    let mut peer = Peer::honest(&socket, &disk);
    let mut rig = Rig::new(&socket);
    assert_eq!(rig.state(), UnitState::Ready, "{:?}", rig.events);
    // So often that the rings are gone through more than once.
    for round in 0..10u64 {
        {
            let mut disk = disk.lock().unwrap();
            (disk.holds, disk.held, disk.batch, disk.found) = (true, 0, 10, 0);
            disk.carried_out.clear();
        }
        for tag in 0..20 {
            let content = noise(round << 8 | tag, 4096);
            let request = rig.write_of(tag * 8, &content, Durability::Cached);
            rig.submit(tag, request);
        }
        rig.driver.kick(now());
        until(|| disk.lock().unwrap().held == 20);
        drop(peer);
        rig.run_until(|rig| rig.state() == UnitState::Recovering);
        disk.lock().unwrap().holds = false;
        peer = Peer::honest(&socket, &disk);
        for completion in rig.finish(20) {
            assert_eq!(completion.result, Ok(()));
        }
        let kept = disk.lock().unwrap();
        let writes: Vec<_> = kept.carried_out.iter().filter(|(kind, _)| *kind == OUT).collect();
        let sectors: Vec<u64> = writes.iter().map(|(_, sector)| *sector).collect();
        assert_eq!(sectors, (0..20).map(|tag| tag * 8).collect::<Vec<_>>(), "each once, in order");
        assert_eq!(kept.found, 10, "the others were told of at once");
        for tag in 0..20 {
            let content = noise(round << 8 | tag, 4096);
            assert!(kept.content[tag as usize * 4096..][..4096] == content, "{round}, {tag}");
        }
    }
    assert_eq!((rig.counter("resumed"), rig.counter("requeued")), (100, 0), "{:?}", rig.events);
    let content = disk.lock().unwrap().content.clone();
    let content = exercise(&mut rig, content, 2, |_| {});
    drop((rig, peer));
    assert!(disk.lock().unwrap().content == content);
}

#[test]
fn another_disk_in_the_same_place_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let disk = Disk::new(noise(2, 1 << 20));
    let peer = Peer::honest(&socket, &disk);
    let mut rig = Rig::new(&socket);
    disk.lock().unwrap().holds = true;
    let request = rig.write_of(0, &noise(3, 512), Durability::Cached);
    rig.submit(1, request);
    rig.driver.kick(now());
    until(|| disk.lock().unwrap().held == 1);
    drop(peer);
    rig.run_until(|rig| rig.state() == UnitState::Recovering);
    let other = Disk::new(noise(4, 1 << 20));
    other.lock().unwrap().serial = "another";
    let _peer = Peer::honest(&socket, &other);
    rig.run_until(|rig| !rig.done.is_empty());
    assert_eq!(rig.done[0].result, Err(outboard_block::BlockError::Gone));
    assert_eq!(rig.state(), UnitState::Failed(FailedReason::Changed));
    assert!(other.lock().unwrap().content == noise(4, 1 << 20));
}

#[test]
fn a_disk_that_changes_its_size_says_so() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("socket");
    let disk = Disk::new(noise(5, 1 << 20));
    let peer = Peer::honest(&socket, &disk);
    let mut rig = Rig::new(&socket);
    let generation = rig.driver.unit(UnitId(0)).unwrap().generation;
    disk.lock().unwrap().content.resize(3 << 20, 7);
    peer.say(&Message::new(backend_request::CONFIG_CHANGE_MSG, Header::NEED_REPLY, &[]));
    rig.run_until(|rig| rig.geometry().sectors == 6144);
    assert!(rig.driver.unit(UnitId(0)).unwrap().generation > generation);
    assert!(rig.read(6143, 1).unwrap() == [7; 512]);
    assert_eq!(rig.counter("device-resets"), 0);
}

/// Attaches to a peer that answers in its own way; what is wrong with it.
fn trouble_of(socket: &Path, twist: Twist) -> Trouble {
    let disk = Disk::new(noise(6, 1 << 20));
    let _peer = Peer::start(socket, &disk, twist);
    let start_time = Duration::from_millis(300);
    let began = Instant::now();
    let attached = VhostUser::attach(VhostConfig { start_time, ..VhostConfig::new(socket) });
    assert!(began.elapsed() < Duration::from_secs(20));
    match attached.map(drop) {
        Err(VhostError::Unusable { trouble, path }) if path == socket => trouble,
        other => panic!("{other:?}"),
    }
}

/// A twist of the answer to one request.
fn instead(of: u32, by: impl Fn(Message) -> Vec<Message> + Send + 'static) -> Twist {
    Box::new(move |request, answer| match answer {
        Some(answer) if request == of => Some(by(answer)),
        answer => Some(answer.into_iter().collect()),
    })
}

fn number(request: u32, number: u64) -> Message {
    Message::new(request, Header::REPLY, number.as_bytes())
}

/// A descriptor that is known by its name.
fn stray(name: &str) -> OwnedFd {
    memfd_create(name, MemfdFlags::CLOEXEC).unwrap()
}

/// How many of that name this process has.
fn strays(name: &str) -> usize {
    let links = std::fs::read_dir("/proc/self/fd").unwrap();
    let links = links.filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().contains(name)).count()
}

#[test]
fn what_is_no_back_end_for_a_disk_is_told_from_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = &folder.path().join("socket");
    let answer = |request, value| instead(request, move |_| vec![number(request, value)]);
    let lacks = |what| Trouble::Lacks(what);
    let none = lacks("VHOST_USER_F_PROTOCOL_FEATURES");
    assert_eq!(trouble_of(socket, answer(GET_FEATURES, 0)), none);
    let none = lacks("VHOST_USER_PROTOCOL_F_CONFIG");
    assert_eq!(trouble_of(socket, answer(GET_PROTOCOL_FEATURES, 0)), none);
    let empty = || Message::new(GET_CONFIG, Header::REPLY, &[]);
    let none = trouble_of(socket, instead(GET_CONFIG, move |_| vec![empty()]));
    assert_eq!(none, Trouble::NoConfig);
    let refused = trouble_of(socket, answer(SET_OWNER, 22));
    assert_eq!(refused, Trouble::Refused { request: SET_OWNER, code: 22 });
    assert_eq!(trouble_of(socket, Box::new(|_, _| None)), Trouble::Closed);
    let silent = trouble_of(socket, Box::new(|_, _| Some(Vec::new())));
    assert!(matches!(silent, Trouble::Silent { request: GET_FEATURES, .. }), "{silent:?}");
}

#[test]
fn answers_that_the_protocol_does_not_have_end_the_connection() {
    let folder = tempfile::tempdir().unwrap();
    let socket = &folder.path().join("socket");
    for (request, what) in [(GET_FEATURES, 1), (GET_QUEUE_NUM, 9), (SET_OWNER, 3)] {
        let short = instead(request, move |_| vec![Message::new(request, Header::REPLY, &[1; 7])]);
        assert_eq!(trouble_of(socket, short), Trouble::Length { request, bytes: 7 });
        let long = instead(request, move |_| vec![Message::new(request, Header::REPLY, &[1; 9])]);
        assert_eq!(trouble_of(socket, long), Trouble::Length { request, bytes: 9 });
        let other = instead(request, move |_| vec![number(what + 1000, 0)]);
        assert_eq!(trouble_of(socket, other), Trouble::Unasked { request: what + 1000 });
        let question = instead(request, move |_| vec![Message::new(request, 0, &[0; 8])]);
        assert_eq!(trouble_of(socket, question), Trouble::Unasked { request });
        let with = instead(request, |mut answer| {
            answer.descriptors = (0..MAX_DESCRIPTORS).map(|_| stray("early")).collect();
            vec![answer]
        });
        assert_eq!(trouble_of(socket, with), Trouble::Descriptors { request });
    }
    let huge = |_| {
        let mut answer = number(GET_FEATURES, 0);
        answer.bytes[8..12].copy_from_slice(&u32::MAX.to_ne_bytes());
        vec![answer]
    };
    let bytes = u32::MAX as usize;
    let wrong = Trouble::Length { request: GET_FEATURES, bytes };
    assert_eq!(trouble_of(socket, instead(GET_FEATURES, huge)), wrong);
    // A header alone, and a part of one.
    for bytes in [1, 11, 12, 19] {
        let cut = move |mut answer: Message| {
            answer.bytes.truncate(bytes);
            vec![answer]
        };
        let silent = trouble_of(socket, instead(GET_FEATURES, cut));
        assert!(matches!(silent, Trouble::Silent { .. }), "{silent:?}");
    }
    assert_eq!(strays("early"), 0);
}

#[test]
fn a_configuration_of_another_length_is_refused_or_made_do_with() {
    let folder = tempfile::tempdir().unwrap();
    let socket = &folder.path().join("socket");
    let config = |told: usize, there: usize| {
        move |_| {
            let mut payload = vec![0; 12 + there];
            payload[4..8].copy_from_slice(&(told as u32).to_ne_bytes());
            vec![Message::new(GET_CONFIG, Header::REPLY, &payload)]
        }
    };
    for (told, there) in [(60, 59), (60, 61), (73, 73), (usize::MAX, 4), (200, 200)] {
        let wrong = trouble_of(socket, instead(GET_CONFIG, config(told, there)));
        assert!(matches!(wrong, Trouble::Length { request: GET_CONFIG, .. }), "{wrong:?}");
    }
    let wrong = trouble_of(
        socket,
        instead(GET_CONFIG, |_| vec![Message::new(GET_CONFIG, Header::REPLY, &[0; 11])]),
    );
    assert_eq!(wrong, Trouble::Length { request: GET_CONFIG, bytes: 11 });
    // One that is short has no sectors: ones stand for what is not there.
    let disk = Disk::new(noise(7, 1 << 20));
    let _peer = Peer::start(socket, &disk, instead(GET_CONFIG, config(4, 4)));
    let rig = Rig::new(socket);
    assert_eq!(rig.state(), UnitState::Failed(FailedReason::BadIdentity), "{:?}", rig.events);
}

#[test]
fn a_back_end_that_lies_later_is_lost_and_given_up_in_bounded_time() {
    let folder = tempfile::tempdir().unwrap();
    let socket = &folder.path().join("socket");
    for request in [SET_FEATURES, SET_MEM_TABLE, GET_INFLIGHT_FD, SET_VRING_KICK, GET_STATUS] {
        let twists: [Twist; 4] = [
            instead(request, move |_| vec![Message::new(request, Header::REPLY, &[0; 3])]),
            instead(request, move |answer| vec![answer, number(GET_FEATURES, 0)]),
            Box::new(move |asked, answer| (asked != request).then(|| answer.into_iter().collect())),
            instead(request, move |mut answer| {
                answer.descriptors.extend([stray("later"), stray("later")]);
                vec![answer]
            }),
        ];
        for twist in twists {
            let disk = Disk::new(noise(8, 1 << 20));
            let peer = Peer::start(socket, &disk, twist);
            let return_time = Duration::from_millis(100);
            let config = VhostConfig { return_time, ..VhostConfig::new(socket) };
            let rig = Rig::with(config, BlkConfig::default());
            let state = rig.state();
            assert!(matches!(state, UnitState::Failed(_)), "{request} {state:?} {:?}", rig.events);
            drop((rig, peer));
        }
    }
    assert_eq!(strays("later"), 0);
}

#[test]
fn a_back_end_that_comes_back_with_less_is_not_used_as_if_it_had_more() {
    let folder = tempfile::tempdir().unwrap();
    let socket = &folder.path().join("socket");
    let disk = Disk::new(noise(9, 1 << 20));
    let peer = Peer::honest(socket, &disk);
    let mut rig = Rig::new(socket);
    let content = noise(9, 1 << 20);
    // Without a region, requests are issued again.
    disk.lock().unwrap().holds = true;
    let request = rig.read_of(5, 1);
    rig.submit(1, request);
    rig.driver.kick(now());
    until(|| disk.lock().unwrap().held == 1);
    drop(peer);
    rig.run_until(|rig| rig.state() == UnitState::Recovering);
    {
        let mut disk = disk.lock().unwrap();
        (disk.holds, disk.protocol) = (false, ProtocolFeatures::CONFIG);
    }
    let peer = Peer::honest(socket, &disk);
    assert_eq!(rig.finish(1)[0].result, Ok(()));
    assert_eq!((rig.counter("requeued"), rig.counter("resumed")), (1, 0));
    assert!(rig.read(5, 1).unwrap() == content[5 * 512..6 * 512]);
    // Without its features, it is another device.
    drop(peer);
    rig.run_until(|rig| rig.state() == UnitState::Recovering);
    let _peer = Peer::start(
        socket,
        &disk,
        instead(GET_FEATURES, |_| {
            vec![number(GET_FEATURES, PROTOCOL_FEATURES | Features::INDIRECT.bits())]
        }),
    );
    rig.run_until(|rig| rig.state() != UnitState::Recovering);
    assert!(matches!(rig.state(), UnitState::Failed(FailedReason::Unsupported(_))));
}
