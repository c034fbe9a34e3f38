//! Opening functions, and what becomes of them.

use crate::device::{Opened, VfioDevice};
use crate::interrupts::VfioInterrupts;
use crate::reach::VfioSpace;
use crate::{VfioError, group, ioctl, iommufd, memory};
use outboard_hw::interrupt::InterruptKind;
use outboard_linux::EventFd;
use outboard_pci::Address;
use outboard_pci::header::{NO_FUNCTION, VENDOR_ID};
use outboard_sysfs::{Function, Machine};
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::{self, Errno};
use rustix::process::getuid;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Weak};
use std::time::Duration;
use vfio_bindings::bindings::vfio::*;

/// How often something is tried that the kernel refuses for a moment: while it still tidies up
/// behind the last user, or gets the function ready.
const ATTEMPTS: u32 = 20;
/// The time between two attempts; the last is made after two seconds.
const PAUSE: Duration = Duration::from_millis(100);
/// The arena is mapped by large pages where its size allows that.
const ARENA_GRANULE: usize = 2 << 20;

/// What is to be opened.
#[derive(Debug, Clone)]
pub struct VfioConfig {
    /// The functions.
    pub functions: Vec<Address>,
    /// Bytes of DMA memory for all of them together.
    pub dma_bytes: usize,
    /// The most bytes of other processes' memory that functions may reach at a time, where whoever
    /// uses them asks for that. Such memory is pinned. Without an IOMMU there is none.
    pub foreign_bytes: u64,
    /// The only kind of interrupts to use.
    pub interrupts: Option<InterruptKind>,
    /// What has to keep the functions from the rest of memory.
    pub confinement: Confinement,
}

/// What keeps functions from memory that is not meant for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Confinement {
    /// The IOMMU: without one, functions are refused.
    #[default]
    Iommu,
    /// Nothing: the functions reach all memory of the machine, as do mistakes of their drivers.
    /// Functions that an IOMMU does confine are refused, so that it is never given up for nothing.
    ///
    /// Takes root, a kernel that was told to (`vfio.enable_unsafe_noiommu_mode=1`), and huge pages
    /// that are set aside.
    DevicesReachAllMemory,
}

/// A function that was opened: for one driver, and for the event loop that runs it.
pub type OpenFunction = (VfioDevice, VfioInterrupts);

/// The functions that a process has opened.
#[derive(Debug)]
pub struct Vfio {
    watched: Vec<Watched>,
    /// Readable when the kernel wants a function back.
    requests: OwnedFd,
    dma_bytes: usize,
    /// The container of functions that no IOMMU confines. That of others belongs to their arena.
    _container: Option<OwnedFd>,
}

/// What is kept of a function whose device is a driver's.
#[derive(Debug)]
struct Watched {
    address: Address,
    /// The device, unless it was closed.
    device: Weak<OwnedFd>,
    request: EventFd,
    requested: bool,
}

impl Vfio {
    /// Opens functions, in the order in which they are given.
    pub fn open(config: &VfioConfig) -> Result<(Self, Vec<OpenFunction>), VfioError> {
        let functions = look_up(&config.functions, config.confinement)?;
        let len = config.dma_bytes.max(1).next_multiple_of(ARENA_GRANULE);
        let (dma, dma_bytes, opened, container) = match config.confinement {
            Confinement::Iommu => {
                // Where there are both, containers: they are what `bind` loads a module for, and
                // their locked memory is counted by process, that of iommufd by user. What else
                // differs is of no use here, such as address spaces that several processes share.
                let (space, opened) = match (group::is_there(), iommufd::is_there()) {
                    (false, true) => iommufd::open(&functions)?,
                    _ => group::open(&functions)?,
                };
                let dma = memory::confined(&Arc::new(space), len, config.foreign_bytes)?;
                (dma, len, opened, None)
            }
            Confinement::DevicesReachAllMemory => {
                // Memory first: of what a dead process had open, the kernel puts away last what has
                // the lowest number, and the functions have to be quiet before their memory goes.
                let (arena, len) = memory::unconfined_arena(len)?;
                let (container, opened) = group::open_unconfined(&functions)?;
                (VfioSpace::new(arena), len, opened, Some(container))
            }
        };
        let requests = epoll::create(CreateFlags::CLOEXEC).map_err(VfioError::system("epoll"))?;
        let mut vfio = Self { watched: Vec::new(), requests, dma_bytes, _container: container };
        let mut made = Vec::new();
        for one in opened {
            vfio.watch(&one)?;
            made.push(VfioDevice::new(one, dma.clone(), config.confinement, config.interrupts)?);
        }
        Ok((vfio, made))
    }

    fn watch(&mut self, opened: &Opened) -> Result<(), VfioError> {
        let request = EventFd::new().map_err(VfioError::system("eventfd"))?;
        let data = EventData::new_u64(0);
        epoll::add(&self.requests, &request, data, EventFlags::IN)
            .map_err(VfioError::system("epoll"))?;
        let (trigger, index) = (VFIO_IRQ_SET_ACTION_TRIGGER, VFIO_PCI_REQ_IRQ_INDEX);
        // A kernel that has no such interrupt waits until the program ends.
        let _ = ioctl::set_irq_events(&*opened.device, index, trigger, &[request.as_fd()]);
        let device = Arc::downgrade(&opened.device);
        let address = opened.address;
        self.watched.push(Watched { address, device, request, requested: false });
        Ok(())
    }

    /// Bytes of DMA memory that there are: fewer than were asked for if nothing confines the
    /// functions, and no piece of memory is as long.
    pub const fn dma_bytes(&self) -> usize {
        self.dma_bytes
    }

    /// Readable when [`drain_requests`](Self::drain_requests) has something to tell.
    pub fn requests(&self) -> BorrowedFd<'_> {
        self.requests.as_fd()
    }

    /// Calls `wanted` with the numbers of functions that the kernel wants back since the last
    /// call, in the order in which they were opened: the function is being unplugged, or unbound,
    /// and whoever does that waits until its device was dropped.
    pub fn drain_requests(&mut self, wanted: &mut dyn FnMut(usize)) {
        for (number, watched) in self.watched.iter_mut().enumerate() {
            // The kernel asks again and again.
            if watched.request.take() && !std::mem::replace(&mut watched.requested, true) {
                wanted(number);
            }
        }
    }

    /// The error that says why no function is left; `Ok` as long as there is one.
    pub fn check(&self) -> Result<(), VfioError> {
        let (requested, others): (Vec<_>, Vec<_>) =
            self.watched.iter().partition(|one| one.requested);
        if others.iter().any(|one| !one.is_gone()) {
            return Ok(());
        }
        let addresses = |of: Vec<&Watched>| of.into_iter().map(|one| one.address).collect();
        Err(match requested.is_empty() {
            true => VfioError::Removed(addresses(others)),
            false => VfioError::Requested(addresses(requested)),
        })
    }
}

impl Watched {
    /// Whether the function no longer answers.
    fn is_gone(&self) -> bool {
        let Some(device) = self.device.upgrade() else { return false };
        let place = crate::region::Place::of(&device, VFIO_PCI_CONFIG_REGION_INDEX).ok();
        let vendor = place.and_then(|place| place.read(&device, VENDOR_ID.into()));
        vendor.is_none_or(|vendor| u16::from_le_bytes(vendor) == NO_FUNCTION)
    }
}

/// Looks functions up, and whether they can be opened at all.
fn look_up(functions: &[Address], confinement: Confinement) -> Result<Vec<Function>, VfioError> {
    let machine = Machine::here();
    let mut found: Vec<Function> = Vec::new();
    for address in functions.iter().copied() {
        if found.iter().any(|other| other.address == address) {
            return Err(VfioError::Twice(address));
        }
        let function = machine.function(address)?;
        if !group::is_there() && !iommufd::is_there() {
            return Err(match function.vfio_device.as_deref() {
                // Functions have files of their own only in kernels that have iommufd.
                Some(name) => {
                    let (path, with) = (iommufd::IOMMUFD.into(), iommufd::file(name));
                    VfioError::NoNode { address, path, with }
                }
                None => VfioError::NoVfio(group::CONTAINER.into()),
            });
        }
        let confined = function.group.is_some_and(|group| !machine.is_unconfined(group));
        match confinement {
            Confinement::Iommu if !confined => return Err(VfioError::NoIommu(address)),
            Confinement::DevicesReachAllMemory if confined => {
                return Err(VfioError::Confined(address));
            }
            Confinement::DevicesReachAllMemory if !machine.knows_no_iommu() => {
                return Err(VfioError::NoSuchMode);
            }
            Confinement::DevicesReachAllMemory if !machine.allows_no_iommu() => {
                return Err(VfioError::NotAllowed(address));
            }
            _ => {}
        }
        if !function.is_on_vfio() {
            return Err(VfioError::NotBound { address, driver: function.driver });
        }
        found.push(function);
    }
    Ok(found)
}

/// What one of VFIO's files is for.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Purpose {
    /// The function.
    pub(crate) address: Address,
    /// The file of address spaces that goes with it.
    pub(crate) with: &'static str,
}

/// Opens one of VFIO's files, which is one of address spaces, or serves a purpose.
pub(crate) fn open_file(path: &Path, purpose: Option<Purpose>) -> Result<OwnedFd, VfioError> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let open = || rustix::fs::open(path, flags, Mode::empty());
    let error = match retry(open) {
        Ok(file) => return Ok(file),
        Err(error) => error,
    };
    Err(match (error, purpose) {
        (Errno::ACCESS | Errno::PERM, _) => {
            VfioError::Permission { path: path.to_owned(), user: getuid().as_raw() }
        }
        (Errno::BUSY, Some(Purpose { address, .. })) => {
            VfioError::Busy { address, holder: holder(path).or_else(|| holder_of(address)) }
        }
        (Errno::NOENT, Some(purpose)) => missing_node(path, purpose),
        (Errno::NOENT, None) => VfioError::NoVfio(path.to_owned()),
        (error, _) => VfioError::system("opening a file of VFIO's")(error),
    })
}

/// Why a function that is bound has no file: the kernel gives it another name if nothing confines
/// the function.
fn missing_node(path: &Path, purpose: Purpose) -> VfioError {
    let Purpose { address, with } = purpose;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match path.with_file_name(format!("noiommu-{name}")).exists() {
        true => VfioError::NoIommu(address),
        false => VfioError::NoNode { address, path: path.to_owned(), with: with.into() },
    }
}

/// Does something with a function that the kernel may refuse for a moment.
pub(crate) fn patiently<T>(
    address: Address,
    attempt: impl FnMut() -> io::Result<T>,
) -> Result<T, VfioError> {
    explained(address, retry(attempt))
}

/// Says what an error of an attempt means for the function.
pub(crate) fn explained<T>(address: Address, result: io::Result<T>) -> Result<T, VfioError> {
    result.map_err(|error| match error {
        Errno::BUSY => VfioError::Busy { address, holder: holder_of(address) },
        Errno::NODEV => VfioError::Unusable { address, what: "the kernel says that it is gone" },
        error => VfioError::system("opening a function")(error),
    })
}

pub(crate) fn retry<T>(mut attempt: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    for _ in 1..ATTEMPTS {
        match attempt() {
            Err(Errno::NODEV | Errno::BUSY | Errno::AGAIN) => std::thread::sleep(PAUSE),
            Err(Errno::INTR) => {}
            result => return result,
        }
    }
    attempt()
}

/// The other process that has a function, where that can be seen: by its group, or by itself.
pub(crate) fn holder_of(address: Address) -> Option<String> {
    let function = Machine::here().function(address).ok()?;
    let device = function.vfio_device.as_deref().map(iommufd::file);
    let files = [function.group.map(group::file), device];
    files.into_iter().flatten().find_map(|path| holder(&path))
}

/// The other process that has a file open, where that can be seen.
fn holder(path: &Path) -> Option<String> {
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let numbers = processes.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    numbers.filter(|pid| *pid != std::process::id()).find_map(|pid| {
        let mut files = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten();
        files.find(|file| std::fs::read_link(file.path()).is_ok_and(|target| target == path))?;
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
        Some(format!("{pid} ({})", name.trim()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_refused_for_a_moment_is_tried_again() {
        let mut refusals = [Errno::NODEV, Errno::BUSY, Errno::INTR].into_iter();
        let result = retry(|| refusals.next().map_or(Ok(7), Err));
        assert_eq!(result, Ok(7));
        let mut attempts = 0;
        let result = retry(|| {
            attempts += 1;
            io::Result::<()>::Err(Errno::ACCESS)
        });
        assert_eq!((result, attempts), (Err(Errno::ACCESS), 1));
    }

    #[test]
    fn a_missing_file_is_told_from_a_missing_iommu() {
        let purpose = Some(Purpose { address: Address::new(0, 0, 4, 0), with: "/nowhere/all" });
        let error = open_file(Path::new("/nowhere/7"), purpose).unwrap_err().to_string();
        assert!(error.contains("/nowhere/7 does not exist"), "{error}");
        assert!(error.contains("(--device=/nowhere/7 --device=/nowhere/all)"), "{error}");
        let folder = std::env::temp_dir().join(format!("outboard-node-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("noiommu-7"), "").unwrap();
        let error = open_file(&folder.join("7"), purpose).unwrap_err();
        std::fs::remove_dir_all(folder).unwrap();
        assert!(matches!(error, VfioError::NoIommu(_)), "{error}");
    }

    #[test]
    fn a_function_that_is_not_there_is_named() {
        let functions = vec![Address::new(0xfff0, 0xee, 0, 0)];
        for confinement in [Confinement::Iommu, Confinement::DevicesReachAllMemory] {
            let functions = functions.clone();
            let config = VfioConfig {
                functions,
                dma_bytes: 1 << 20,
                foreign_bytes: 0,
                interrupts: None,
                confinement,
            };
            let error = Vfio::open(&config).unwrap_err().to_string();
            assert!(error.contains("fff0:ee:00.0") && error.contains("outboard status"), "{error}");
        }
    }
}
