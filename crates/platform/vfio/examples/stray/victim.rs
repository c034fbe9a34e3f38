//! Memory that is not the device's, at a place that is known.

use crate::{Failure, MARK};
use std::fs::File;
use std::os::unix::fs::FileExt;

const PAGE: usize = 4096;
/// Below this the arena is mapped for the device, at addresses that memory has, too.
const FLOOR: u64 = 32 << 20;
/// So much cannot lie below the floor, where the kernel has something as well.
const BYTES: usize = FLOOR as usize;

/// Memory of this process that is full of [`MARK`], and was not mapped for the device. Without an
/// IOMMU, the device would reach a page of it by its physical address.
pub(crate) struct Victim {
    bytes: Vec<u8>,
    /// Where the page is in `bytes`.
    page: usize,
    /// The page's physical address.
    pub(crate) physical: u64,
}

impl Victim {
    pub(crate) fn new() -> Result<Self, Failure> {
        let bytes = vec![MARK; BYTES];
        let first = bytes.as_ptr().align_offset(PAGE);
        for page in (first..bytes.len() - PAGE).step_by(PAGE) {
            let physical = physical(&bytes[page])?;
            if physical >= FLOOR {
                return Ok(Self { bytes, page, physical });
            }
        }
        Err("no memory lies where nothing is mapped for the device".into())
    }

    /// Whether all is as it was.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        if physical(&self.bytes[self.page])? != self.physical {
            return Err("the kernel has moved the page, so that nothing can be said of it".into());
        }
        match self.bytes.iter().any(|byte| *byte != MARK) {
            true => Err("the device has written memory that is not its own".into()),
            false => Ok(()),
        }
    }
}

/// The physical address of the page that a byte is in (proc_pid_pagemap(5)); only root sees it.
fn physical(byte: &u8) -> Result<u64, Failure> {
    let page = (std::ptr::from_ref(byte).addr() / PAGE) as u64;
    let mut entry = [0; 8];
    File::open("/proc/self/pagemap")?.read_exact_at(&mut entry, page * 8)?;
    let entry = u64::from_le_bytes(entry);
    let number = entry & ((1 << 55) - 1);
    if entry >> 63 == 0 || number == 0 {
        return Err("the kernel does not tell where memory is".into());
    }
    Ok(number * PAGE as u64)
}
