//! The codec: messages survive the way out and back, bytes that are no message are refused.

use outboard_ninep::wire::{
    Datasync, DecodeError, Dialect, Extension, Frame, Names, NumericUser, Qid, QidKind, Qids,
    Reply, Request, Stat, UnixErrno,
};
use proptest::prelude::*;

const DIALECTS: [Dialect; 3] = [Dialect::Plan9, Dialect::Unix, Dialect::Linux];

fn frame(bytes: &[u8]) -> Frame<'_> {
    Frame::split(bytes, u32::MAX).unwrap().unwrap()
}

fn request<'a>(bytes: &'a [u8], dialect: Dialect) -> Result<Request<'a>, DecodeError> {
    let Frame { number, body, .. } = frame(bytes);
    Request::decode(number, body, dialect)
}

#[test]
fn messages_are_laid_out_as_the_manual_says() {
    let mut bytes = Vec::new();
    let version = Request::Version { msize: 8192, version: "9P2000" };
    version.encode(0xffff, &mut bytes, Dialect::Plan9);
    let expected = b"\x13\0\0\0\x64\xff\xff\0\x20\0\0\x06\x009P2000";
    assert_eq!(bytes, expected);

    bytes.clear();
    let names = Names::new(&["usr", "x"]);
    Request::Walk { fid: 1, newfid: 2, names }.encode(7, &mut bytes, Dialect::Plan9);
    let expected = b"\x19\0\0\0\x6e\x07\0\x01\0\0\0\x02\0\0\0\x02\0\x03\0usr\x01\0x";
    assert_eq!(bytes, expected);

    bytes.clear();
    Reply::Error { message: "no", errno: UnixErrno(2) }.encode(7, &mut bytes, Dialect::Plan9);
    assert_eq!(bytes, b"\x0b\0\0\0\x6b\x07\0\x02\0no");
    bytes.clear();
    Reply::Error { message: "no", errno: UnixErrno(2) }.encode(7, &mut bytes, Dialect::Unix);
    assert_eq!(bytes, b"\x0f\0\0\0\x6b\x07\0\x02\0no\x02\0\0\0");
    bytes.clear();
    Reply::Lerror { errno: 2 }.encode(7, &mut bytes, Dialect::Linux);
    assert_eq!(bytes, b"\x0b\0\0\0\x07\x07\0\x02\0\0\0");
}

#[test]
fn dialects_are_negotiated_down() {
    assert_eq!(Dialect::negotiate("9P2000.L"), Some(Dialect::Linux));
    assert_eq!(Dialect::negotiate("9P2000.u"), Some(Dialect::Unix));
    assert_eq!(Dialect::negotiate("9P2000"), Some(Dialect::Plan9));
    assert_eq!(Dialect::negotiate("9P2000.x"), Some(Dialect::Plan9));
    for version in ["", "9P", "9P1000", "9P2000L", "unknown"] {
        assert_eq!(Dialect::negotiate(version), None, "{version}");
    }
}

#[test]
fn a_link_message_that_is_cut_short_is_refused() {
    // 17 bytes: header, two fids, and the length of a name that is not there.
    let bytes = b"\x11\0\0\0\x46\x01\0\x01\0\0\0\x02\0\0\0\x05\0";
    assert_eq!(request(bytes, Dialect::Linux), Err(DecodeError::Truncated));
    let bytes = b"\x11\0\0\0\x46\x01\0\x01\0\0\0\x02\0\0\0\xff\xff";
    assert_eq!(request(bytes, Dialect::Linux), Err(DecodeError::Truncated));
    assert_eq!(request(bytes, Dialect::Plan9), Err(DecodeError::UnknownType(70)));
}

#[test]
fn sizes_that_no_message_has_are_told_apart_from_messages_that_are_not_whole() {
    assert_eq!(Frame::split(&[], 100), Ok(None));
    assert_eq!(Frame::split(&[9, 0, 0], 100), Ok(None));
    assert_eq!(Frame::split(&[9, 0, 0, 0, 1], 100), Ok(None));
    assert_eq!(Frame::split(&[6, 0, 0, 0], 100), Err(6));
    assert_eq!(Frame::split(&[101, 0, 0, 0], 100), Err(101));
    assert_eq!(Frame::split(&[0xff; 4], 100), Err(u32::MAX));
}

#[test]
fn lists_that_are_too_long_and_bytes_left_over_are_refused() {
    let mut bytes = Vec::new();
    Request::Clunk { fid: 1 }.encode(1, &mut bytes, Dialect::Plan9);
    bytes.push(0);
    bytes[0] += 1;
    assert_eq!(request(&bytes, Dialect::Plan9), Err(DecodeError::TooLong));
    let mut walk = vec![0; 7 + 8];
    walk[4] = 110;
    walk.extend(17u16.to_le_bytes());
    walk.extend([0; 17 * 2]);
    walk[0] = walk.len() as u8;
    assert_eq!(request(&walk, Dialect::Plan9), Err(DecodeError::TooMany));
}

fn text() -> impl Strategy<Value = String> {
    "[a-zA-Z0-9/äß\u{1F600} ]{0,12}"
}

fn qid() -> impl Strategy<Value = Qid> {
    let parts = (any::<u8>(), any::<u32>(), any::<u64>());
    parts.prop_map(|(kind, version, path)| Qid {
        kind: QidKind::from_bits_retain(kind),
        version,
        path,
    })
}

/// Numbers and strings to make messages of.
#[derive(Debug, Clone)]
struct Parts {
    n: [u32; 6],
    w: [u64; 4],
    s: [String; 4],
    names: Vec<String>,
    data: Vec<u8>,
    qid: Qid,
}

fn parts() -> impl Strategy<Value = Parts> {
    let strings = [text(), text(), text(), text()];
    let names = prop::collection::vec(text(), 0..=16);
    let data = prop::collection::vec(any::<u8>(), 0..100);
    (any::<[u32; 6]>(), any::<[u64; 4]>(), strings, names, data, qid())
        .prop_map(|(n, w, s, names, data, qid)| Parts { n, w, s, names, data, qid })
}

fn stat(p: &Parts, dialect: Dialect) -> Stat<'_> {
    let plain = dialect == Dialect::Plan9;
    Stat {
        kind: p.n[0] as u16,
        device: p.n[1],
        qid: p.qid,
        mode: p.n[2],
        access_time: p.n[3],
        modify_time: p.n[4],
        length: p.w[0],
        name: &p.s[0],
        user: &p.s[1],
        group: &p.s[2],
        modifier: &p.s[3],
        extension: if plain { "" } else { &p.s[0] },
        numbers: if plain { [u32::MAX; 3] } else { [p.n[0], p.n[1], p.n[2]] },
    }
}

/// Every request that a dialect has.
fn requests<'a>(p: &'a Parts, names: &[&'a str], dialect: Dialect) -> Vec<Request<'a>> {
    let Parts { n, w, s, data, .. } = p;
    let (fid, newfid, count) = (n[0], n[1], n[2]);
    let (name, other) = (s[0].as_str(), s[1].as_str());
    let n_uname = NumericUser(if dialect == Dialect::Plan9 { u32::MAX } else { n[3] });
    let extension = Extension(if dialect == Dialect::Unix { &s[2] } else { "" });
    let offset = w[0];
    let mut all = vec![
        Request::Version { msize: count, version: name },
        Request::Auth { afid: fid, uname: name, aname: other, n_uname },
        Request::Attach { fid, afid: newfid, uname: name, aname: other, n_uname },
        Request::Flush { oldtag: count as u16 },
        Request::Walk { fid, newfid, names: Names::new(names) },
        Request::Read { fid, offset, count },
        Request::Write { fid, offset, data },
        Request::Clunk { fid },
        Request::Remove { fid },
    ];
    if dialect != Dialect::Linux {
        let (perm, mode) = (count, n[3] as u8);
        all.extend([
            Request::Open { fid, mode },
            Request::Create { fid, name, perm, mode, extension },
            Request::Stat { fid },
            Request::Wstat { fid, stat: stat(p, dialect) },
        ]);
        return all;
    }
    let (flags, mode, gid) = (n[3], n[4], n[5]);
    let (kind, start, length, client_id) = (n[3] as u8, w[1], w[2], other);
    all.extend([
        Request::Statfs { fid },
        Request::Lopen { fid, flags },
        Request::Lcreate { fid, name, flags, mode, gid },
        Request::Symlink { fid, name, target: other, gid },
        Request::Mknod { dfid: fid, name, mode, major: flags, minor: count, gid },
        Request::Rename { fid, dfid: newfid, name },
        Request::Readlink { fid },
        Request::Getattr { fid, mask: w[1] },
        Request::Setattr {
            fid,
            valid: n[1],
            mode,
            uid: n[2],
            gid,
            size: w[0],
            atime_sec: w[1],
            atime_nsec: w[2],
            mtime_sec: w[3],
            mtime_nsec: w[0],
        },
        Request::Xattrwalk { fid, newfid, name },
        Request::Xattrcreate { fid, name, size: w[1], flags },
        Request::Readdir { fid, offset, count },
        Request::Fsync { fid, datasync: Datasync(flags) },
        Request::Lock { fid, kind, flags, start, length, proc_id: gid, client_id },
        Request::Getlock { fid, kind, start, length, proc_id: gid, client_id },
        Request::Link { dfid: fid, fid: newfid, name },
        Request::Mkdir { dfid: fid, name, mode, gid },
        Request::Renameat { olddirfid: fid, oldname: name, newdirfid: newfid, newname: other },
        Request::Unlinkat { dirfid: fid, name, flags },
    ]);
    all
}

fn replies(p: &Parts, dialect: Dialect) -> Vec<Reply<'_>> {
    let Parts { n, w, s, data, qid, .. } = p;
    let mut qids = Qids::EMPTY;
    (0..n[0] % 17).for_each(|_| assert!(qids.push(*qid)));
    let mut all = vec![
        Reply::Version { msize: n[0], version: &s[0] },
        Reply::Auth { aqid: *qid },
        Reply::Attach { qid: *qid },
        Reply::Flush {},
        Reply::Walk { qids },
        Reply::Read { data },
        Reply::Write { count: n[0] },
        Reply::Clunk {},
        Reply::Remove {},
    ];
    if dialect != Dialect::Linux {
        let errno = UnixErrno(if dialect == Dialect::Unix { n[1] } else { 0 });
        all.extend([
            Reply::Error { message: &s[0], errno },
            Reply::Open { qid: *qid, iounit: n[0] },
            Reply::Create { qid: *qid, iounit: n[0] },
            Reply::Stat { stat: stat(p, dialect) },
            Reply::Wstat {},
        ]);
        return all;
    }
    all.extend([
        Reply::Lerror { errno: n[0] },
        Reply::Statfs {
            kind: n[0],
            bsize: n[1],
            blocks: w[0],
            bfree: w[1],
            bavail: w[2],
            files: w[3],
            ffree: w[0],
            fsid: w[1],
            namelen: n[2],
        },
        Reply::Lopen { qid: *qid, iounit: n[0] },
        Reply::Getattr {
            valid: w[0],
            qid: *qid,
            mode: n[0],
            uid: n[1],
            gid: n[2],
            nlink: w[1],
            rdev: w[2],
            size: w[3],
            blksize: w[0],
            blocks: w[1],
            atime_sec: w[2],
            atime_nsec: w[3],
            mtime_sec: w[0],
            mtime_nsec: w[1],
            ctime_sec: w[2],
            ctime_nsec: w[3],
            btime_sec: w[0],
            btime_nsec: w[1],
            gen_number: w[2],
            data_version: w[3],
        },
        Reply::Setattr {},
        Reply::Readdir { data },
        Reply::Fsync {},
    ]);
    all
}

proptest! {
    #[test]
    fn requests_and_replies_survive_the_way_out_and_back(p in parts(), tag in any::<u16>()) {
        let names: Vec<&str> = p.names.iter().map(String::as_str).collect();
        for dialect in DIALECTS {
            for request in requests(&p, &names, dialect) {
                let mut bytes = vec![1, 2, 3];
                request.encode(tag, &mut bytes, dialect);
                let found = frame(&bytes[3..]);
                prop_assert_eq!((found.tag, found.size), (tag, bytes.len() - 3));
                let back = Request::decode(found.number, found.body, dialect);
                prop_assert_eq!(back, Ok(request));
                // No part of a message is one, but for what old clients leave out.
                for cut in 0..found.body.len() {
                    let part = Request::decode(found.number, &found.body[..cut], dialect);
                    let old = matches!(part, Ok(Request::Fsync { .. }));
                    prop_assert!(part.is_err() || old, "{:?}", part);
                }
            }
            for reply in replies(&p, dialect) {
                let mut bytes = Vec::new();
                reply.encode(tag, &mut bytes, dialect);
                let found = frame(&bytes);
                prop_assert_eq!(Reply::decode(found.number, found.body, dialect), Ok(reply));
            }
        }
    }

    #[test]
    fn whatever_is_decoded_is_encoded_to_the_same_bytes(
        number in any::<u8>(),
        body in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        for dialect in DIALECTS {
            let Ok(request) = Request::decode(number, &body, dialect) else { continue };
            let mut bytes = Vec::new();
            request.encode(3, &mut bytes, dialect);
            if !matches!(request, Request::Fsync { .. }) {
                prop_assert_eq!(&bytes[7..], &body[..]);
            }
        }
    }
}
