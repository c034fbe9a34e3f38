//! The requests of VFIO and `iommufd`, as functions.
//!
//! Structures and numbers are those of `linux/vfio.h` and `linux/iommufd.h`. Each structure begins
//! with its own size, so that kernel and program may be of different ages; the answers that have
//! capabilities behind them are asked for twice, the second time with room for those.
#![allow(unsafe_code)]

use rustix::io;
use rustix::ioctl::{Ioctl, IoctlOutput, Opcode, opcode};
use std::ffi::{CStr, c_void};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use vfio_bindings::bindings::vfio::*;

/// The most bytes that an answer with its capabilities has: one page, as the kernel's lists do.
const MAX_ANSWER_BYTES: usize = 64 << 10;

const fn vfio(number: u32) -> Opcode {
    opcode::none(VFIO_TYPE, (VFIO_BASE + number) as u8)
}

const GET_API_VERSION: Opcode = vfio(0);
const CHECK_EXTENSION: Opcode = vfio(1);
const SET_IOMMU: Opcode = vfio(2);
const GROUP_SET_CONTAINER: Opcode = vfio(4);
const GROUP_GET_DEVICE_FD: Opcode = vfio(6);
const DEVICE_RESET: Opcode = vfio(11);

/// What a request takes: a structure whose first word is its size.
///
/// # Safety
/// The request that `OPCODE` names reads and writes no more than such a structure, plus, up to the
/// size that its first word says, what comes behind it; all zeros and whatever the kernel writes
/// are values of it (S9).
unsafe trait Argument: Copy {
    const OPCODE: Opcode;
}

macro_rules! arguments {
    ($($name:ty = $opcode:expr;)*) => {$(
        // SAFETY: as `linux/vfio.h` and `linux/iommufd.h` say; the fields are integers (S9).
        unsafe impl Argument for $name {
            const OPCODE: Opcode = $opcode;
        }
        const _: () = assert!(align_of::<$name>() <= align_of::<u64>());
    )*};
}

arguments! {
    vfio_group_status = vfio(3);
    vfio_device_info = vfio(7);
    vfio_region_info = vfio(8);
    vfio_irq_info = vfio(9);
    IrqSet = vfio(10);
    vfio_iommu_type1_info = vfio(12);
    vfio_iommu_type1_dma_map = vfio(13);
    DmaUnmap = vfio(14);
    vfio_device_bind_iommufd = vfio(18);
    vfio_device_attach_iommufd_pt = vfio(19);
    IoasAlloc = iommufd(0x81);
    IoasRanges = iommufd(0x84);
    IoasMap = iommufd(0x85);
    IoasUnmap = iommufd(0x86);
}

const fn iommufd(number: u8) -> Opcode {
    opcode::none(VFIO_TYPE, number)
}

/// `struct vfio_irq_set`, without the data behind it.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct IrqSet {
    argsz: u32,
    flags: u32,
    index: u32,
    start: u32,
    count: u32,
}

/// `struct vfio_iommu_type1_dma_unmap`, without data.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct DmaUnmap {
    argsz: u32,
    flags: u32,
    iova: u64,
    size: u64,
}

/// `struct iommu_ioas_alloc`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct IoasAlloc {
    size: u32,
    flags: u32,
    out_ioas_id: u32,
}

/// `struct iommu_ioas_iova_ranges`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct IoasRanges {
    size: u32,
    ioas_id: u32,
    num_iovas: u32,
    reserved: u32,
    allowed_iovas: u64,
    out_iova_alignment: u64,
}

/// `struct iommu_ioas_map`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct IoasMap {
    size: u32,
    flags: u32,
    ioas_id: u32,
    reserved: u32,
    user_va: u64,
    length: u64,
    iova: u64,
}

/// `struct iommu_ioas_unmap`.
#[derive(Debug, Clone, Copy, Default)]
#[repr(C)]
struct IoasUnmap {
    size: u32,
    ioas_id: u32,
    iova: u64,
    length: u64,
}

const IOAS_MAP_FIXED_IOVA: u32 = 1 << 0;
const IOAS_MAP_WRITEABLE: u32 = 1 << 1;
const IOAS_MAP_READABLE: u32 = 1 << 2;

const _: () = assert!(size_of::<IrqSet>() == 20 && size_of::<DmaUnmap>() == 24);
const _: () = assert!(size_of::<IoasAlloc>() == 12 && size_of::<IoasRanges>() == 32);
const _: () = assert!(size_of::<IoasMap>() == 40 && size_of::<IoasUnmap>() == 24);
const _: () = assert!(size_of::<vfio_iommu_type1_dma_map>() == 32);

/// One system call.
struct Call(Opcode, *mut c_void);

// SAFETY: the number and the argument are passed on as they are; whoever makes the value answers
// for them (S9).
unsafe impl Ioctl for Call {
    type Output = IoctlOutput;

    const IS_MUTATING: bool = true;

    fn opcode(&self) -> Opcode {
        self.0
    }

    fn as_ptr(&mut self) -> *mut c_void {
        self.1
    }

    // SAFETY: nothing is read from the pointer (S9).
    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> io::Result<IoctlOutput> {
        Ok(output)
    }
}

/// A request that takes a number.
fn number(fd: impl AsFd, request: Opcode, value: usize) -> io::Result<IoctlOutput> {
    debug_assert!([GET_API_VERSION, CHECK_EXTENSION, SET_IOMMU, DEVICE_RESET].contains(&request));
    // SAFETY: these requests take no pointer (S9).
    unsafe { rustix::ioctl::ioctl(fd, Call(request, std::ptr::without_provenance_mut(value))) }
}

/// A request with a structure and bytes behind it, which have the structure's first word for a
/// size. Returns the structure and the bytes as the kernel has left them.
fn exchange<T: Argument>(fd: impl AsFd, argument: T, behind: &[u8]) -> io::Result<(T, Vec<u8>)> {
    let head = size_of::<T>();
    let bytes = head + behind.len();
    let mut words = vec![0u64; bytes.div_ceil(8)];
    let start = words.as_mut_ptr().cast::<u8>();
    // SAFETY: the buffer is at least as long, and aligned to eight (S9).
    unsafe { start.cast::<T>().write(argument) };
    let rest = start.wrapping_add(head);
    // SAFETY: what is behind the structure fits, too, and is no part of it (S9).
    unsafe { rest.copy_from_nonoverlapping(behind.as_ptr(), behind.len()) };
    // SAFETY: the first word of each such structure is its size (S9).
    unsafe { start.cast::<u32>().write(bytes as u32) };
    // SAFETY: the request keeps to the size that it is told, which the buffer has (S9).
    unsafe { rustix::ioctl::ioctl(fd, Call(T::OPCODE, start.cast())) }?;
    // SAFETY: the buffer begins with such a structure, of which any bytes are a value (S9).
    let answer = unsafe { start.cast::<T>().read() };
    let rest = words.iter().flat_map(|word| word.to_ne_bytes()).skip(head).take(behind.len());
    Ok((answer, rest.collect()))
}

fn ask<T: Argument>(fd: impl AsFd, argument: T) -> io::Result<T> {
    exchange(fd, argument, &[]).map(|(answer, _)| answer)
}

/// Asks for a structure and the capabilities behind it; the bytes are the whole answer's, so that
/// offsets in them are the kernel's.
fn ask_with_capabilities<T: Argument>(
    fd: impl AsFd,
    argument: T,
    size: fn(&T) -> u32,
) -> io::Result<(T, Vec<u8>)> {
    let head = size_of::<T>();
    let answer = ask(&fd, argument)?;
    let wanted = (size(&answer) as usize).min(MAX_ANSWER_BYTES);
    let (answer, behind) = exchange(fd, argument, &vec![0; wanted.saturating_sub(head)])?;
    Ok((answer, [vec![0; head], behind].concat()))
}

/// `VFIO_GET_API_VERSION`, of a container.
pub(crate) fn api_version(container: impl AsFd) -> io::Result<u32> {
    number(container, GET_API_VERSION, 0).map(|version| version as u32)
}

/// `VFIO_CHECK_EXTENSION`, of a container.
pub(crate) fn has_extension(container: impl AsFd, extension: u32) -> io::Result<bool> {
    number(container, CHECK_EXTENSION, extension as usize).map(|answer| answer > 0)
}

/// `VFIO_SET_IOMMU`, of a container with a group.
pub(crate) fn set_iommu(container: impl AsFd, kind: u32) -> io::Result<()> {
    number(container, SET_IOMMU, kind as usize).map(drop)
}

/// `VFIO_GROUP_GET_STATUS`: the flags.
pub(crate) fn group_flags(group: impl AsFd) -> io::Result<u32> {
    ask(group, vfio_group_status::default()).map(|status| status.flags)
}

/// `VFIO_GROUP_SET_CONTAINER`.
pub(crate) fn set_container(group: impl AsFd, container: BorrowedFd<'_>) -> io::Result<()> {
    let mut container = container.as_raw_fd();
    let argument = std::ptr::from_mut(&mut container).cast();
    // SAFETY: the request reads one descriptor, which is open through the call (S6, S9).
    unsafe { rustix::ioctl::ioctl(group, Call(GROUP_SET_CONTAINER, argument)) }.map(drop)
}

/// `VFIO_GROUP_GET_DEVICE_FD`.
pub(crate) fn group_device(group: impl AsFd, name: &CStr) -> io::Result<OwnedFd> {
    let argument = name.as_ptr().cast_mut().cast();
    // SAFETY: the request reads a string that ends with a zero (S9).
    let fd = unsafe { rustix::ioctl::ioctl(group, Call(GROUP_GET_DEVICE_FD, argument)) }?;
    // SAFETY: the kernel has just made this descriptor for us (S6).
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `VFIO_DEVICE_GET_INFO`.
pub(crate) fn device_info(device: impl AsFd) -> io::Result<vfio_device_info> {
    ask(device, vfio_device_info::default())
}

/// `VFIO_DEVICE_GET_REGION_INFO`, with the answer's bytes for its capabilities.
pub(crate) fn region_info(
    device: impl AsFd,
    index: u32,
) -> io::Result<(vfio_region_info, Vec<u8>)> {
    let region = vfio_region_info { index, ..Default::default() };
    ask_with_capabilities(device, region, |answer| answer.argsz)
}

/// `VFIO_DEVICE_GET_IRQ_INFO`.
pub(crate) fn irq_info(device: impl AsFd, index: u32) -> io::Result<vfio_irq_info> {
    ask(device, vfio_irq_info { index, ..Default::default() })
}

/// `VFIO_DEVICE_SET_IRQS`: vectors from 0 on do `action` to, or by, these `eventfd`s.
pub(crate) fn set_irq_events(
    device: impl AsFd,
    index: u32,
    action: u32,
    events: &[BorrowedFd<'_>],
) -> io::Result<()> {
    let (flags, count) = (VFIO_IRQ_SET_DATA_EVENTFD | action, events.len() as u32);
    let descriptors: Vec<u8> =
        events.iter().flat_map(|event| event.as_raw_fd().to_ne_bytes()).collect();
    let set = IrqSet { flags, index, count, ..Default::default() };
    exchange(device, set, &descriptors).map(drop)
}

/// `VFIO_DEVICE_SET_IRQS`: switches all vectors of an index off.
pub(crate) fn disable_irqs(device: impl AsFd, index: u32) -> io::Result<()> {
    let flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    ask(device, IrqSet { flags, index, ..Default::default() }).map(drop)
}

/// `VFIO_DEVICE_RESET`.
pub(crate) fn reset(device: impl AsFd) -> io::Result<()> {
    number(device, DEVICE_RESET, 0).map(drop)
}

/// `VFIO_IOMMU_GET_INFO`, with the answer's bytes for its capabilities.
pub(crate) fn type1_info(container: impl AsFd) -> io::Result<(vfio_iommu_type1_info, Vec<u8>)> {
    ask_with_capabilities(container, vfio_iommu_type1_info::default(), |answer| answer.argsz)
}

/// `VFIO_IOMMU_MAP_DMA`: lets devices read and write memory.
///
/// # Safety
/// The memory at `cpu` is DMA memory (S1, S2, S3) for as long as it is mapped.
pub(crate) unsafe fn type1_map(
    container: impl AsFd,
    cpu: usize,
    iova: u64,
    len: u64,
) -> io::Result<()> {
    let flags = VFIO_DMA_MAP_FLAG_READ | VFIO_DMA_MAP_FLAG_WRITE;
    let map = vfio_iommu_type1_dma_map {
        flags,
        vaddr: cpu as u64,
        iova,
        size: len,
        ..Default::default()
    };
    ask(container, map).map(drop)
}

/// `VFIO_IOMMU_UNMAP_DMA`, of exactly what was mapped: the second version of type 1 refuses to
/// split a mapping.
pub(crate) fn type1_unmap(container: impl AsFd, iova: u64, len: u64) -> io::Result<()> {
    ask(container, DmaUnmap { iova, size: len, ..Default::default() }).map(drop)
}

/// `VFIO_DEVICE_BIND_IOMMUFD`.
pub(crate) fn bind_iommufd(device: impl AsFd, iommufd: BorrowedFd<'_>) -> io::Result<()> {
    let iommufd = iommufd.as_raw_fd();
    ask(device, vfio_device_bind_iommufd { iommufd, ..Default::default() }).map(drop)
}

/// `VFIO_DEVICE_ATTACH_IOMMUFD_PT`.
pub(crate) fn attach_ioas(device: impl AsFd, ioas: u32) -> io::Result<()> {
    let attach = vfio_device_attach_iommufd_pt { pt_id: ioas, ..Default::default() };
    ask(device, attach).map(drop)
}

/// `IOMMU_IOAS_ALLOC`.
pub(crate) fn ioas_alloc(iommufd: impl AsFd) -> io::Result<u32> {
    ask(iommufd, IoasAlloc::default()).map(|answer| answer.out_ioas_id)
}

/// `IOMMU_IOAS_IOVA_RANGES`: first and last address of each.
pub(crate) fn ioas_ranges(iommufd: impl AsFd, ioas_id: u32) -> io::Result<Vec<(u64, u64)>> {
    /// More than any IOMMU has: the ranges are what a few reserved ones leave.
    const RANGES: usize = 64;
    let mut ranges = [0u64; 2 * RANGES];
    let allowed_iovas = ranges.as_mut_ptr().expose_provenance() as u64;
    let num_iovas = RANGES as u32;
    let asked = IoasRanges { ioas_id, num_iovas, allowed_iovas, ..Default::default() };
    // The kernel writes at most as many ranges as there is room for, and says EMSGSIZE if there
    // are more (S9).
    let found = ask(iommufd, asked)?.num_iovas as usize;
    Ok(ranges.chunks_exact(2).take(found).map(|range| (range[0], range[1])).collect())
}

/// `IOMMU_IOAS_MAP`: lets devices read and write memory.
///
/// # Safety
/// The memory at `cpu` is DMA memory (S1, S2, S3) for as long as it is mapped.
pub(crate) unsafe fn ioas_map(
    iommufd: impl AsFd,
    ioas_id: u32,
    cpu: usize,
    iova: u64,
    length: u64,
) -> io::Result<()> {
    let flags = IOAS_MAP_FIXED_IOVA | IOAS_MAP_WRITEABLE | IOAS_MAP_READABLE;
    let map = IoasMap { flags, ioas_id, user_va: cpu as u64, length, iova, ..Default::default() };
    ask(iommufd, map).map(drop)
}

/// `IOMMU_IOAS_UNMAP`, of exactly what was mapped.
pub(crate) fn ioas_unmap(
    iommufd: impl AsFd,
    ioas_id: u32,
    iova: u64,
    length: u64,
) -> io::Result<()> {
    ask(iommufd, IoasUnmap { ioas_id, iova, length, ..Default::default() }).map(drop)
}
