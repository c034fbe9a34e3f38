//! Sessions over a tree whose answers come when the test says so.

mod support;

use outboard_ninep::server::{CloseReason, Completed, FileError, Limits, errno};
use outboard_ninep::wire::{
    Dialect, Frame, NO_FID, NO_TAG, Names, NumericUser, Reply, Request, Stat,
};

use support::{Bench, Bytes, attach, open};

const ALL: [Dialect; 3] = [Dialect::Plan9, Dialect::Unix, Dialect::Linux];

#[test]
fn versions_are_negotiated_and_sizes_limited() {
    let mut bench = Bench::raw(Limits::default());
    bench.refused(&attach(0), "must begin with Tversion");
    let mut version = |msize, version, expected: &str| {
        bench.send(NO_TAG, &Request::Version { msize, version });
        let answers = bench.answers();
        assert_eq!(answers[0].0, NO_TAG);
        assert!(answers[0].1.contains(expected), "{answers:?}");
    };
    version(100_000_000, "9P2000.L", "msize: 1048576, version: \"9P2000.L\"");
    version(4096, "9P2000.u", "msize: 4096, version: \"9P2000.u\"");
    version(4096, "9P2000.what", "version: \"9P2000\"");
    version(4096, "8P", "version: \"unknown\"");
    version(255, "9P2000", "at least 256");
    bench.refused(&attach(0), "must begin with Tversion");
}

#[test]
fn a_new_version_forgets_everything() {
    let mut bench = Bench::new(Dialect::Linux);
    bench.send(5, &Request::Read { fid: 2, offset: 0, count: 10 });
    bench.tree.started = true;
    bench.version(8192, Dialect::Plan9);
    bench.refused(&Request::Clunk { fid: 2 }, "no fid 2");
    bench.finish(Completed::Data(&Bytes(b"too late".to_vec())));
    assert_eq!(bench.answers(), [], "nobody waits for it");
    bench.good(&attach(0));
}

#[test]
fn walking_goes_all_the_way_or_says_how_far() {
    for dialect in ALL {
        let mut bench = Bench::new(dialect);
        let walk = |names: &[&'static str], newfid| Request::Walk {
            fid: 0,
            newfid,
            names: Names::new(names),
        };
        let qids = |answer: String| answer.matches("Qid {").count();
        assert_eq!(qids(bench.good(&walk(&[], 10))), 0);
        assert_eq!(qids(bench.good(&walk(&["..", ".", "text"], 11))), 3);
        assert_eq!(qids(bench.good(&walk(&["text"], 12))), 1);
        bench.refused(&walk(&["nothing"], 13), "no such file");
        assert_eq!(qids(bench.good(&walk(&["..", "nothing", "text"], 13))), 1, "one step");
        bench.refused(&Request::Clunk { fid: 13 }, "no fid 13");
        assert_eq!(qids(bench.good(&walk(&["text", "below"], 14))), 1, "not a directory");
        bench.refused(&walk(&["text"], 12), "in use");
        bench.refused(&walk(&["text"], NO_FID), "NOFID");
        let unknown = Request::Walk { fid: 99, newfid: 15, names: Names::new(&[]) };
        bench.refused(&unknown, "no fid 99");
        let open = Request::Walk { fid: 1, newfid: 1, names: Names::new(&[]) };
        bench.refused(&open, "is open");
        // A fid may walk itself away.
        bench.good(&Request::Walk { fid: 10, newfid: 10, names: Names::new(&["slow"]) });
        let below = Request::Walk { fid: 10, newfid: 16, names: Names::new(&["x"]) };
        bench.refused(&below, "not a directory");
    }
}

#[test]
fn files_are_opened_read_written_and_clunked() {
    for dialect in ALL {
        let mut bench = Bench::new(dialect);
        let read = |offset, count| Request::Read { fid: 1, offset, count };
        assert!(bench.good(&read(0, 5)).contains(&format!("{:?}", b"hello")));
        assert!(bench.good(&read(7, 500)).contains(&format!("{:?}", b"world")));
        assert!(bench.good(&read(12, 5)).contains("data: []"));
        assert!(bench.good(&read(u64::MAX, u32::MAX)).contains("data: []"));
        bench.refused(&Request::Write { fid: 1, offset: 0, data: b"x" }, "not open for this");
        bench.refused(&open(dialect, 1, false), "open already");
        let walk = Request::Walk { fid: 0, newfid: 7, names: Names::new(&["fixed"]) };
        bench.good(&walk);
        bench.refused(&open(dialect, 7, true), "cannot be written");
        bench.refused(&Request::Read { fid: 7, offset: 0, count: 1 }, "not open for this");
        bench.good(&Request::Clunk { fid: 7 });
        bench.refused(&Request::Clunk { fid: 7 }, "no fid 7");
        bench.refused(&open(dialect, 0, true), "directory cannot be written");
        bench.refused(&Request::Remove { fid: 1 }, "cannot be removed");
        bench.refused(&Request::Clunk { fid: 1 }, "no fid 1");
    }
}

#[test]
fn answers_come_in_the_order_in_which_they_are_ready() {
    let mut bench = Bench::new(Dialect::Unix);
    bench.send(10, &Request::Read { fid: 2, offset: 0, count: 100 });
    bench.send(11, &Request::Write { fid: 2, offset: 5, data: b"four" });
    bench.send(12, &Request::Read { fid: 1, offset: 0, count: 1 });
    bench.send(13, &Request::Read { fid: 2, offset: 7, count: 100_000_000 });
    assert_eq!(bench.answers()[0].0, 12);
    let waiting: Vec<_> = bench.tree.waiting.iter().map(|(what, _)| what.clone()).collect();
    assert_eq!(waiting, ["read 0 100", "write 5 4", "read 7 8168"], "as long as a message is");
    bench.tree.waiting.swap(0, 1);
    bench.finish(Completed::All);
    bench.finish(Completed::Data(&Bytes(vec![7; 3])));
    bench.finish(Completed::Failed(FileError::new(errno::EIO, "sector 9")));
    let answers = bench.answers();
    assert_eq!(answers[0], (11, "Write { count: 4 }".to_owned()));
    assert_eq!(answers[1], (10, "Read { data: [7, 7, 7] }".to_owned()));
    assert_eq!(answers[2].0, 13);
    assert!(answers[2].1.contains("sector 9") && answers[2].1.contains("UnixErrno(5)"));
}

#[test]
fn a_tag_may_not_be_used_twice_at_once() {
    let mut bench = Bench::new(Dialect::Plan9);
    bench.send(4, &Request::Read { fid: 2, offset: 0, count: 1 });
    bench.send(4, &Request::Clunk { fid: 1 });
    assert!(bench.answers()[0].1.contains("the tag belongs"));
    bench.finish(Completed::All);
    bench.send(4, &Request::Clunk { fid: 1 });
    assert_eq!(bench.answers().len(), 2);
}

#[test]
fn flushing_withdraws_what_was_not_started() {
    let mut bench = Bench::new(Dialect::Plan9);
    bench.send(4, &Request::Write { fid: 2, offset: 0, data: b"x" });
    bench.send(5, &Request::Flush { oldtag: 4 });
    assert_eq!(bench.answers(), [(5, "Flush".to_owned())]);
    assert_eq!(bench.tree.cancelled, ["write 0 1"]);
    assert!(bench.session.is_idle());
    // What was answered, never asked, or is the flush itself, is answered at once.
    for old in [4, 99, 6] {
        bench.send(6, &Request::Flush { oldtag: old });
        assert_eq!(bench.answers(), [(6, "Flush".to_owned())]);
    }
    bench.send(4, &Request::Read { fid: 1, offset: 0, count: 1 });
    assert_eq!(bench.answers()[0].0, 4, "the tag is free again");
}

#[test]
fn flushing_a_read_under_way_forgets_it() {
    let mut bench = Bench::new(Dialect::Plan9);
    bench.send(4, &Request::Read { fid: 2, offset: 0, count: 1 });
    bench.tree.started = true;
    bench.send(5, &Request::Flush { oldtag: 4 });
    assert_eq!(bench.answers(), [(5, "Flush".to_owned())]);
    bench.send(4, &Request::Read { fid: 2, offset: 1, count: 1 });
    bench.finish(Completed::Data(&Bytes(vec![1])));
    assert_eq!(bench.answers(), []);
    bench.finish(Completed::Data(&Bytes(vec![2])));
    assert_eq!(bench.answers(), [(4, "Read { data: [2] }".to_owned())]);
}

#[test]
fn flushing_a_write_under_way_waits_for_it() {
    let mut bench = Bench::new(Dialect::Plan9);
    bench.send(4, &Request::Write { fid: 2, offset: 0, data: b"x" });
    bench.tree.started = true;
    bench.send(5, &Request::Flush { oldtag: 4 });
    bench.send(6, &Request::Flush { oldtag: 4 });
    assert_eq!(bench.answers(), []);
    bench.finish(Completed::Count(1));
    let answers: Vec<_> = bench.answers().into_iter().map(|(tag, _)| tag).collect();
    assert_eq!(answers, [4, 5, 6]);
}

#[test]
fn a_tree_that_is_busy_is_asked_again() {
    let mut bench = Bench::new(Dialect::Plan9);
    bench.tree.busy = true;
    bench.send(4, &Request::Read { fid: 2, offset: 0, count: 1 });
    bench.send(5, &Request::Read { fid: 1, offset: 0, count: 1 });
    assert_eq!(bench.answers(), [], "those behind wait too");
    bench.tree.busy = false;
    bench.session.work(&mut bench.tree);
    assert_eq!(bench.answers()[0].0, 5);
    assert_eq!(bench.tree.waiting.len(), 1);
}

#[test]
fn what_a_client_can_ask_for_at_once_is_bounded() {
    let limits = Limits { requests: 3, bytes: 10_000, fids: 5, ..Limits::default() };
    let mut bench = Bench::limited(Dialect::Plan9, limits);
    for tag in 10..20 {
        bench.send(tag, &Request::Read { fid: 2, offset: tag.into(), count: 10 });
    }
    assert_eq!(bench.tree.waiting.len(), 3);
    (0..10).for_each(|_| bench.finish(Completed::All));
    assert_eq!(bench.answers().len(), 10, "in the end all are answered");

    bench.send(10, &Request::Read { fid: 2, offset: 0, count: 8000 });
    bench.send(11, &Request::Read { fid: 2, offset: 0, count: 8000 });
    assert_eq!(bench.tree.waiting.len(), 1, "two answers would be too many bytes");
    bench.finish(Completed::Data(&Bytes(vec![0; 8000])));
    assert_eq!(bench.tree.waiting.len(), 0, "not before the first is sent");
    bench.answers();
    bench.session.work(&mut bench.tree);
    assert_eq!(bench.tree.waiting.len(), 1);
    bench.finish(Completed::All);
    bench.answers();

    bench.good(&Request::Walk { fid: 0, newfid: 50, names: Names::new(&[]) });
    bench.refused(&Request::Walk { fid: 0, newfid: 51, names: Names::new(&[]) }, "too many fids");
}

#[test]
fn flushes_that_wait_are_bounded_too() {
    let limits = Limits { requests: 4, ..Limits::default() };
    let mut bench = Bench::limited(Dialect::Plan9, limits);
    bench.version(256, Dialect::Plan9);
    bench.good(&attach(0));
    bench.good(&Request::Walk { fid: 0, newfid: 2, names: Names::new(&["slow"]) });
    bench.good(&open(Dialect::Plan9, 2, true));
    bench.send(1, &Request::Write { fid: 2, offset: 0, data: b"x" });
    bench.tree.started = true;
    let mut flushes = 0;
    while bench.session.wants_input() && flushes < 1000 {
        bench.send(2, &Request::Flush { oldtag: 1 });
        flushes += 1;
    }
    // Three wait for the write, and the others to be looked at.
    assert!(flushes < 256 / 9 + 5, "{flushes} were taken");
    bench.finish(Completed::All);
    assert_eq!(bench.answers().len(), 1 + flushes);
    assert!(bench.session.is_idle());
}

#[test]
fn a_turn_is_of_so_many_messages_and_the_rest_is_for_the_next() {
    let mut bench = Bench::new(Dialect::Plan9);
    let flushes = Request::Flush { oldtag: 9 };
    let mut bytes = Vec::new();
    (0..700).for_each(|tag| flushes.encode(tag, &mut bytes, Dialect::Plan9));
    bench.session.room()[..bytes.len()].copy_from_slice(&bytes);
    bench.session.received(bytes.len());
    assert!(bench.session.work(&mut bench.tree), "there is more to do");
    let first = bench.answers().len();
    assert!((100..700).contains(&first) && !bench.session.is_idle());
    while bench.session.work(&mut bench.tree) {}
    assert_eq!(first + bench.answers().len(), 700);
    assert!(bench.session.is_idle());
}

#[test]
fn a_session_is_not_idle_while_it_has_messages_to_work_off() {
    let limits = Limits { bytes: 1000, ..Limits::default() };
    let mut bench = Bench::limited(Dialect::Plan9, limits);
    let read = Request::Read { fid: 2, offset: 0, count: 1000 };
    bench.send(1, &read);
    bench.send(2, &read);
    bench.finish(Completed::Data(&Bytes(vec![0; 1000])));
    assert_eq!(bench.answers().len(), 1);
    assert!(!bench.session.is_idle(), "the second read had to wait for room");
    bench.session.work(&mut bench.tree);
    bench.finish(Completed::All);
    bench.answers();
    assert!(bench.session.is_idle());
    bench.tree.busy = true;
    bench.send(3, &read);
    bench.session.forget_input();
    assert!(bench.session.is_idle());
}

#[test]
fn errors_fit_into_small_messages() {
    for dialect in ALL {
        let mut bench = Bench::raw(Limits::default());
        bench.version(256, dialect);
        let aname = &"\u{1}é".repeat(70);
        let n_uname = NumericUser(0);
        let attach = Request::Attach { fid: 0, afid: NO_FID, uname: "", aname, n_uname };
        bench.refused(&attach, "");
    }
}

#[test]
fn input_is_bounded_by_the_size_of_a_message() {
    let mut bench = Bench::new(Dialect::Plan9);
    bench.tree.busy = true;
    let data = vec![1; 8000];
    let mut bytes = Vec::new();
    for tag in 0..4 {
        let write = Request::Write { fid: 2, offset: 0, data: &data };
        write.encode(tag, &mut bytes, Dialect::Plan9);
    }
    let mut sent = 0;
    while bench.session.wants_input() {
        let room = bench.session.room();
        let count = room.len().min(100);
        room[..count].copy_from_slice(&bytes[sent..sent + count]);
        bench.session.received(count);
        sent += count;
        bench.session.work(&mut bench.tree);
    }
    assert!(sent < 3 * 8192, "{sent} bytes were taken");
    bench.tree.busy = false;
    bench.session.work(&mut bench.tree);
    bench.send_bytes(&bytes[sent..]);
    assert_eq!(bench.tree.waiting.len(), 4, "and nothing was lost");
}

#[test]
fn messages_may_arrive_in_any_pieces() {
    let mut bench = Bench::new(Dialect::Linux);
    let mut bytes = Vec::new();
    for tag in 0..20 {
        let read = Request::Read { fid: 1, offset: tag.into(), count: 3 };
        read.encode(tag, &mut bytes, Dialect::Linux);
    }
    for size in [1, 3, 7, 22, 23, 24, 1000] {
        bytes.chunks(size).for_each(|piece| bench.send_bytes(piece));
        assert_eq!(bench.answers().len(), 20, "pieces of {size}");
    }
}

#[test]
fn malformed_messages_are_answered_and_impossible_sizes_end_the_session() {
    for dialect in ALL {
        let mut bench = Bench::new(dialect);
        // A link message that is cut short, a type that does not exist, a name that is not UTF-8.
        let messages: [&[u8]; 3] = [
            b"\x11\0\0\0\x46\x01\0\x01\0\0\0\x02\0\0\0\x05\0",
            b"\x07\0\0\0\xff\x01\0",
            b"\x13\0\0\0\x6e\x01\0\0\0\0\0\x09\0\0\0\x01\0\x02\0\xff\xfe",
        ];
        for message in messages {
            let mut message = message.to_vec();
            message[0] = message.len() as u8;
            bench.send_bytes(&message);
            let answers = bench.answers();
            assert_eq!((answers.len(), answers[0].0), (1, 1));
            assert!(answers[0].1.contains("rror {"), "{answers:?}");
        }
        bench.good(&Request::Read { fid: 1, offset: 0, count: 1 });
        for size in [0u32, 6, 8193, u32::MAX] {
            let mut bench = Bench::new(dialect);
            bench.send_bytes(&size.to_le_bytes());
            assert_eq!(bench.session.closed(), Some(CloseReason::BadSize(size)));
            assert!(bench.session.room().is_empty());
        }
    }
}

#[test]
fn directories_are_listed_in_pieces_that_fit() {
    for dialect in [Dialect::Plan9, Dialect::Unix] {
        let mut bench = Bench::new(dialect);
        bench.good(&open(dialect, 0, false));
        let (mut names, mut offset) = (Vec::new(), 0);
        loop {
            bench.send(1, &Request::Read { fid: 0, offset, count: 90 });
            let bytes = bench.session.unsent().to_vec();
            bench.session.sent(bytes.len());
            let frame = Frame::split(&bytes, 8192).unwrap().unwrap();
            let Ok(Reply::Read { data }) = Reply::decode(frame.number, frame.body, dialect) else {
                panic!("{frame:?}");
            };
            if data.is_empty() {
                break;
            }
            assert!(data.len() <= 90);
            let mut reader = outboard_ninep::wire::Reader::new(data, dialect);
            while reader.finish().is_err() {
                let stat = Stat::get_entry(&mut reader).unwrap();
                assert_eq!((stat.user, stat.modify_time), ("me", 77));
                names.push(stat.name.to_owned());
            }
            offset += data.len() as u64;
        }
        assert_eq!(names, ["text", "slow", "fixed"]);
        bench.refused(&Request::Read { fid: 0, offset: 5, count: 90 }, "from its start");
        // Nothing would mean that the directory has ended.
        bench.refused(&Request::Read { fid: 0, offset: 0, count: 20 }, "less than the next entry");
    }
    let mut bench = Bench::new(Dialect::Linux);
    bench.good(&open(Dialect::Linux, 0, false));
    bench.refused(&Request::Read { fid: 0, offset: 0, count: 90 }, "Treaddir");
    let all = bench.good(&Request::Readdir { fid: 0, offset: 0, count: 8000 });
    let some = bench.good(&Request::Readdir { fid: 0, offset: 3, count: 8000 });
    assert!(some.len() < all.len());
    assert!(bench.good(&Request::Readdir { fid: 0, offset: 5, count: 8000 }).contains("[]"));
    let far = Request::Readdir { fid: 0, offset: u64::MAX, count: 8000 };
    assert!(bench.good(&far).contains("[]"));
    bench.refused(&Request::Readdir { fid: 1, offset: 0, count: 8000 }, "");
    bench.refused(&Request::Readdir { fid: 0, offset: 0, count: 20 }, "");
}

#[test]
fn only_what_changes_nothing_can_be_changed() {
    let keep = Stat::UNCHANGED;
    let wstat = |stat| Request::Wstat { fid: 1, stat };
    for dialect in [Dialect::Plan9, Dialect::Unix] {
        let mut bench = Bench::new(dialect);
        bench.good(&wstat(Stat { length: 0, ..keep }));
        bench.good(&wstat(Stat { length: 12, modify_time: 5, ..keep }));
        bench.refused(&wstat(Stat { length: 13, ..keep }), "keeps them");
        bench.refused(&wstat(Stat { name: "new", ..keep }), "only times and length");
        bench.refused(&wstat(Stat { mode: 0o777, ..keep }), "only times and length");
        // Nothing at all: make it durable.
        bench.send(1, &wstat(keep));
        assert_eq!(bench.answers(), []);
        assert_eq!(bench.tree.waiting[0].0, "sync");
        bench.finish(Completed::All);
        assert_eq!(bench.answers(), [(1, "Wstat".to_owned())]);
        // For that the file need not be open.
        bench.good(&Request::Walk { fid: 0, newfid: 8, names: Names::new(&["slow"]) });
        bench.send(1, &Request::Wstat { fid: 8, stat: keep });
        bench.finish(Completed::All);
        assert_eq!(bench.answers(), [(1, "Wstat".to_owned())]);
    }
    let mut bench = Bench::new(Dialect::Linux);
    let setattr = |valid, size| Request::Setattr {
        fid: 1,
        valid,
        mode: 0,
        uid: 0,
        gid: 0,
        size,
        atime_sec: 0,
        atime_nsec: 0,
        mtime_sec: 0,
        mtime_nsec: 0,
    };
    bench.good(&setattr(1 << 3 | 1 << 5, 0));
    bench.refused(&setattr(1 << 3, 5), "");
    bench.refused(&setattr(1, 0), "");
}

#[test]
fn requests_that_no_file_here_supports_are_refused_and_the_session_goes_on() {
    let mut bench = Bench::new(Dialect::Linux);
    let name = "x";
    for request in [
        Request::Auth { afid: 9, uname: "", aname: "", n_uname: NumericUser(0) },
        Request::Lcreate { fid: 0, name, flags: 0, mode: 0, gid: 0 },
        Request::Mkdir { dfid: 0, name, mode: 0, gid: 0 },
        Request::Link { dfid: 0, fid: 1, name },
        Request::Renameat { olddirfid: 0, oldname: name, newdirfid: 0, newname: name },
        Request::Unlinkat { dirfid: 0, name, flags: 0 },
        Request::Xattrwalk { fid: 1, newfid: 9, name },
        Request::Readlink { fid: 1 },
        Request::Getlock { fid: 1, kind: 0, start: 0, length: 0, proc_id: 0, client_id: "" },
        Request::Link { dfid: 99, fid: 98, name },
        attach(0),
        Request::Getattr { fid: 99, mask: 0 },
        Request::Statfs { fid: 99 },
    ] {
        bench.refused(&request, "");
    }
    assert!(bench.good(&Request::Getattr { fid: 1, mask: u64::MAX }).contains("uid: 5, gid: 6"));
    bench.good(&Request::Statfs { fid: 0 });
    let other = Request::Attach {
        fid: 30,
        afid: NO_FID,
        uname: "",
        aname: "elsewhere",
        n_uname: NumericUser(0),
    };
    bench.refused(&other, "");
}
