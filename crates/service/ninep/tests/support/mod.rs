//! A tree of four files, and a session over it.

use outboard_ninep::server::{
    Access, Answer, Attributes, Completed, Data, FileError, Limits, Owner, RequestId, Session,
    Tree, errno,
};
use outboard_ninep::wire::{
    Dialect, Frame, NO_FID, NO_TAG, Names, NumericUser, Qid, QidKind, Reply, Request,
};
use std::sync::Arc;

/// The root (0) with files 1 to 3: a text, a file whose answers come later, one that is read-only.
#[derive(Default)]
pub(crate) struct FakeTree {
    /// Requests that wait for an answer: what, and for whom.
    pub(crate) waiting: Vec<(String, RequestId)>,
    pub(crate) cancelled: Vec<String>,
    /// Requests with these names cannot be withdrawn any more.
    pub(crate) started: bool,
    pub(crate) busy: bool,
}

pub(crate) const NAMES: [&str; 4] = ["/", "text", "slow", "fixed"];
pub(crate) const TEXT: &[u8] = b"hello, world";

pub(crate) fn missing() -> FileError {
    FileError::new(errno::ENOENT, "there is no such file")
}

impl FakeTree {
    fn later(&mut self, what: String, request: RequestId) -> Answer<RequestId> {
        if self.busy {
            return Answer::Busy;
        }
        self.waiting.push((what, request));
        Answer::Later(request)
    }
}

impl Tree for FakeTree {
    type Node = usize;
    type File = usize;
    type Pending = RequestId;

    fn root(&self) -> usize {
        0
    }
    fn parent(&self, _: &usize) -> usize {
        0
    }
    fn child(&self, _: &usize, name: &str) -> Result<usize, FileError> {
        NAMES.iter().position(|found| *found == name).filter(|n| *n > 0).ok_or_else(missing)
    }
    fn children(&self, _: &usize) -> Vec<usize> {
        vec![1, 2, 3]
    }
    fn is_directory(&self, node: &usize) -> bool {
        *node == 0
    }
    fn attributes(&self, node: &usize) -> Result<Attributes, FileError> {
        let kind = if *node == 0 { QidKind::DIRECTORY } else { QidKind::empty() };
        Ok(Attributes {
            qid: Qid { kind, version: 0, path: *node as u64 },
            name: NAMES[*node].to_owned(),
            permissions: if *node == 3 { 0o400 } else { 0o600 },
            bytes: 12,
            modified: 77,
        })
    }
    fn open(&mut self, node: &usize, _: Access) -> Result<usize, FileError> {
        Ok(*node)
    }
    fn read(
        &mut self,
        file: &mut usize,
        offset: u64,
        count: usize,
        into: &mut Vec<u8>,
        request: RequestId,
    ) -> Result<Answer<RequestId>, FileError> {
        if *file == 2 {
            return Ok(self.later(format!("read {offset} {count}"), request));
        }
        let rest = TEXT.get(offset as usize..).unwrap_or_default();
        into.extend_from_slice(&rest[..count.min(rest.len())]);
        Ok(Answer::Now(into.len()))
    }
    fn write(
        &mut self,
        file: &mut usize,
        offset: u64,
        data: &[u8],
        request: RequestId,
    ) -> Result<Answer<RequestId>, FileError> {
        match file {
            2 => Ok(self.later(format!("write {offset} {}", data.len()), request)),
            _ => Ok(Answer::Now(data.len())),
        }
    }
    fn sync(&mut self, _: &mut usize, request: RequestId) -> Result<Answer<RequestId>, FileError> {
        Ok(self.later("sync".to_owned(), request))
    }
    fn cancel(&mut self, pending: RequestId) -> bool {
        let index = self.waiting.iter().position(|(_, request)| *request == pending);
        if self.started {
            return false;
        }
        let (what, _) = self.waiting.remove(index.unwrap());
        self.cancelled.push(what);
        true
    }
}

#[derive(Debug)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Data for Bytes {
    fn size(&self) -> usize {
        self.0.len()
    }
    fn copy_to(&self, into: &mut [u8]) {
        into.copy_from_slice(&self.0[..into.len()]);
    }
}

pub(crate) struct Bench {
    pub(crate) session: Session<FakeTree>,
    pub(crate) tree: FakeTree,
    pub(crate) dialect: Dialect,
    pub(crate) msize: u32,
}

impl Bench {
    pub(crate) fn raw(limits: Limits) -> Self {
        let owner = Owner { name: "me".into(), user: 5, group: 6 };
        let session = Session::new(9, limits, Arc::new(owner));
        Self { session, tree: FakeTree::default(), dialect: Dialect::Plan9, msize: 8192 }
    }

    /// A session with fid 0 attached to the root, and fids 1, 2 and 3 open on the files.
    pub(crate) fn new(dialect: Dialect) -> Self {
        Self::limited(dialect, Limits::default())
    }

    pub(crate) fn limited(dialect: Dialect, limits: Limits) -> Self {
        let mut bench = Self::raw(limits);
        bench.version(8192, dialect);
        bench.good(&attach(0));
        for (fid, name) in [(1, "text"), (2, "slow"), (3, "fixed")] {
            bench.good(&Request::Walk { fid: 0, newfid: fid, names: Names::new(&[name]) });
            let write = fid == 2;
            bench.good(&open(dialect, fid, write));
        }
        bench
    }

    pub(crate) fn version(&mut self, msize: u32, dialect: Dialect) {
        self.send(NO_TAG, &Request::Version { msize, version: dialect.name() });
        (self.dialect, self.msize) = (dialect, msize);
        let answers = self.answers();
        assert!(answers[0].1.starts_with("Version"), "{answers:?}");
    }

    pub(crate) fn send_bytes(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let room = self.session.room();
            let count = room.len().min(bytes.len());
            assert!(count > 0, "the session takes nothing");
            room[..count].copy_from_slice(&bytes[..count]);
            bytes = &bytes[count..];
            self.session.received(count);
            self.session.work(&mut self.tree);
        }
    }

    pub(crate) fn send(&mut self, tag: u16, request: &Request<'_>) {
        let mut bytes = Vec::new();
        request.encode(tag, &mut bytes, self.dialect);
        self.send_bytes(&bytes);
    }

    /// What was answered, as tag and text.
    pub(crate) fn answers(&mut self) -> Vec<(u16, String)> {
        let bytes = self.session.unsent().to_vec();
        self.session.sent(bytes.len());
        let (mut rest, mut answers) = (&bytes[..], Vec::new());
        while let Some(frame) = Frame::split(rest, self.msize).expect("what was agreed on") {
            let reply = Reply::decode(frame.number, frame.body, self.dialect).unwrap();
            answers.push((frame.tag, format!("{reply:?}")));
            rest = &rest[frame.size..];
        }
        assert!(rest.is_empty(), "whole messages only");
        answers
    }

    /// Sends one request and returns the one answer to it.
    pub(crate) fn ask(&mut self, request: &Request<'_>) -> String {
        self.send(1, request);
        let mut answers = self.answers();
        let (tag, answer) = answers.pop().expect("an answer");
        assert_eq!((tag, answers.len()), (1, 0), "{answers:?}");
        answer
    }

    pub(crate) fn good(&mut self, request: &Request<'_>) -> String {
        let answer = self.ask(request);
        assert!(!answer.contains("rror {"), "{request:?}: {answer}");
        answer
    }

    pub(crate) fn refused(&mut self, request: &Request<'_>, words: &str) {
        let answer = self.ask(request);
        let dialect = self.dialect;
        let error = if dialect == Dialect::Linux { "Lerror" } else { "Error" };
        assert!(answer.starts_with(error), "{request:?}: {answer}");
        assert!(dialect == Dialect::Linux || answer.contains(words), "{request:?}: {answer}");
    }

    /// Answers the request that has waited longest.
    pub(crate) fn finish(&mut self, completed: Completed<'_>) {
        let (_, request) = self.tree.waiting.remove(0);
        assert_eq!(request.session, 9);
        self.session.complete(request, completed);
        self.session.work(&mut self.tree);
    }
}

pub(crate) fn attach(fid: u32) -> Request<'static> {
    let n_uname = NumericUser(u32::MAX);
    Request::Attach { fid, afid: NO_FID, uname: "me", aname: "", n_uname }
}

pub(crate) fn open(dialect: Dialect, fid: u32, write: bool) -> Request<'static> {
    let mode = if write { 2 } else { 0 };
    match dialect {
        Dialect::Linux => Request::Lopen { fid, flags: mode.into() },
        _ => Request::Open { fid, mode },
    }
}
