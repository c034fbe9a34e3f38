//! Where clients connect.

use outboard_ninep::Address;
use rustix::fs::{FlockOperation, Mode, fchmod, flock, fstat, stat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use std::fs::{File, OpenOptions, remove_file};
use std::io;
use std::net::{IpAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use thiserror::Error;

/// Clients that may wait to be accepted.
const BACKLOG: i32 = 128;

/// Why a server cannot listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ListenError {
    /// Somebody else exports a disk there.
    #[error(
        "{} is in use by another server. Stop that one, or choose another folder with --vhost-user",
        .0.display()
    )]
    Exported(PathBuf),
    /// Somebody else listens there.
    #[error("{0} is in use by another server. Stop that one, or choose another address with --9p")]
    Busy(Address),
    /// Something that is not a socket is in the way.
    #[error("{} exists and is not a socket; it was left alone. Choose another path", .0.display())]
    NotASocket(PathBuf),
    /// The path does not fit into a socket's address.
    #[error("{} is too long for a socket; it may have 107 bytes", .0.display())]
    TooLong(PathBuf),
    /// The system refused.
    #[error("cannot listen at {address}: {error}. {advice}")]
    System {
        /// Where.
        address: Address,
        /// Why.
        error: io::Error,
        /// What to do about it.
        advice: &'static str,
    },
}

/// A socket that clients connect to. A Unix socket is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) address: Address,
    socket: OwnedFd,
    _path: Option<OwnedPath>,
}

impl Listener {
    /// Listens at `address`.
    pub(crate) fn new(address: &Address) -> Result<Self, ListenError> {
        match address {
            Address::Unix(path) => listen_unix(path),
            Address::Tcp { host, port } => listen_tcp(host, *port),
        }
    }

    /// Listens for virtual machines.
    pub(crate) fn for_machines(path: &Path) -> Result<Self, ListenError> {
        listen_unix(path).map_err(|error| match error {
            ListenError::Busy(_) => ListenError::Exported(path.to_owned()),
            error => error,
        })
    }

    /// Whether only programs on this machine reach it.
    pub(crate) fn is_local(&self) -> bool {
        match &self.address {
            Address::Unix(_) => true,
            Address::Tcp { host, .. } => {
                host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn listen_tcp(host: &str, port: u16) -> Result<Listener, ListenError> {
    let asked = Address::Tcp { host: host.to_owned(), port };
    let failed = |error: io::Error| match error.kind() {
        io::ErrorKind::AddrInUse => ListenError::Busy(asked.clone()),
        kind => {
            let advice = match kind {
                io::ErrorKind::PermissionDenied => "Ports below 1024 are for root; choose another",
                io::ErrorKind::AddrNotAvailable => "Choose an address that this machine has",
                _ => "Check host and port",
            };
            ListenError::System { address: asked.clone(), error, advice }
        }
    };
    let addresses: Vec<_> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    let listener = TcpListener::bind(addresses.as_slice()).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let address = Address::Tcp { host: bound.ip().to_string(), port: bound.port() };
    Ok(Listener { address, socket: listener.into(), _path: None })
}

fn listen_unix(path: &Path) -> Result<Listener, ListenError> {
    let address = Address::Unix(path.to_owned());
    let failed = |error: Errno| {
        let advice = match error {
            Errno::NOENT => "Make its folder first (mkdir -p)",
            Errno::ACCESS | Errno::PERM | Errno::ROFS => "Choose a folder that you may write to",
            _ => "Choose another path",
        };
        ListenError::System { address: address.clone(), error: error.into(), advice }
    };
    let name = SocketAddrUnix::new(path).map_err(|error| match error {
        Errno::NAMETOOLONG => ListenError::TooLong(path.to_owned()),
        error => failed(error),
    })?;
    let mut owned = OwnedPath::claim(path, &failed)?;
    match path.symlink_metadata() {
        // Our own kind holds the lock, but other programs know nothing of that.
        Ok(found) if found.file_type().is_socket() => match is_left_over(&name) {
            Ok(true) => drop(remove_file(path)),
            Ok(false) => return Err(ListenError::Busy(address)),
            Err(error) => return Err(failed(error)),
        },
        Ok(_) => return Err(ListenError::NotASocket(path.to_owned())),
        Err(_) => {}
    }
    let socket = unix_socket().map_err(failed)?;
    // The socket file gets this mode when it is made, so it is never open to others.
    fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    bind(&socket, &name).map_err(failed)?;
    owned.bound = true;
    listen(&socket, BACKLOG).map_err(failed)?;
    Ok(Listener { address, socket, _path: Some(owned) })
}

fn unix_socket() -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
}

/// Whether nobody listens at a socket any more. Any other answer than that, such as a full queue
/// or one that we may not see, comes from a socket that is somebody's.
fn is_left_over(name: &SocketAddrUnix) -> Result<bool, Errno> {
    let refused = connect(unix_socket()?, name).err();
    Ok(matches!(refused, Some(Errno::CONNREFUSED | Errno::NOENT)))
}

/// The right to a socket's path: a lock on a file beside it, which no two servers have.
#[derive(Debug)]
struct OwnedPath {
    socket: PathBuf,
    lock: PathBuf,
    /// What is at the path is our socket.
    bound: bool,
    _locked: File,
}

impl OwnedPath {
    fn claim(socket: &Path, failed: &impl Fn(Errno) -> ListenError) -> Result<Self, ListenError> {
        let mut lock = socket.as_os_str().to_owned();
        lock.push(".lock");
        let lock = PathBuf::from(lock);
        loop {
            let mut options = OpenOptions::new();
            let options = options.create(true).truncate(false).write(true).mode(0o600);
            let file = options
                .open(&lock)
                .map_err(|error| failed(Errno::from_io_error(&error).unwrap_or(Errno::IO)))?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    return Err(ListenError::Busy(Address::Unix(socket.to_owned())));
                }
                Err(error) => return Err(failed(error)),
            }
            // Its last owner may have removed it since it was opened.
            let same = match (fstat(&file), stat(&lock)) {
                (Ok(ours), Ok(named)) => (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino),
                _ => false,
            };
            if same {
                return Ok(Self { socket: socket.to_owned(), lock, bound: false, _locked: file });
            }
        }
    }
}

impl Drop for OwnedPath {
    fn drop(&mut self) {
        if self.bound {
            let _ = remove_file(&self.socket);
        }
        let _ = remove_file(&self.lock);
    }
}
