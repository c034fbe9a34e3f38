//! What the text files say.

use outboard_block::disk::{DiskId, Disks};
use std::fmt::Write;

/// Heads and sectors of a track that tools pretend, since long before disks hid theirs.
const HEADS: u64 = 255;
const SECTORS_OF_TRACK: u64 = 63;

/// A disk's `ctl`: first what names it, then what sd(3) gives, then what is wrong with it.
pub(super) fn control(disks: &Disks, disk: DiskId) -> String {
    let mut text = String::new();
    let Some(info) = disks.info(disk) else { return text };
    let (identity, geometry) = (&info.identity, &info.geometry);
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{key} {value}");
    };
    line("device", &info.name);
    line("model", &identity.model);
    line("serial", &identity.serial);
    line("status", &info.state);
    line("firmware", &identity.firmware);
    line("medium", &geometry.medium);
    line("physical", &geometry.physical_sector_bytes);
    line("queue", &geometry.queue_depth);
    line("cache", &if geometry.write_cache { "on" } else { "off" });
    line("trim", &if geometry.max_discard_sectors > 0 { "yes" } else { "no" });
    line("access", &if geometry.read_only { "read-only" } else { "read-write" });
    let table = disks.table(disk);
    match table.and_then(|table| table.scheme) {
        Some(scheme) => line("table", &scheme),
        None => line("table", &"none"),
    }
    line("geometry", &format_args!("{} {}", geometry.sectors, geometry.sector_bytes));
    line("part", &format_args!("0 0 {}", geometry.sectors));
    for volume in disks.volumes(disk) {
        let end = volume.first_lba + volume.sectors;
        line("part", &format_args!("{} {} {end}", volume.name, volume.first_lba));
    }
    table.iter().flat_map(|table| &table.warnings).for_each(|warning| line("warning", warning));
    text
}

/// A disk's `geometry`.
pub(super) fn geometry(disks: &Disks, disk: DiskId) -> String {
    let Some(geometry) = disks.geometry(disk) else { return String::new() };
    let cylinders = geometry.sectors / (HEADS * SECTORS_OF_TRACK);
    format!(
        "sectors {}\nsecsize {}\ncylinders {cylinders}\nheads {HEADS}\nsectors/track \
         {SECTORS_OF_TRACK}\n",
        geometry.sectors, geometry.sector_bytes
    )
}

/// The `ctl` of all disks: a line for each.
pub(super) fn top_control(disks: &Disks) -> String {
    let infos = disks.ids().filter_map(|disk| disks.info(disk));
    let lines = infos.map(|info| {
        let bytes = info.geometry.bytes();
        format!("disk {} {bytes} {} {}\n", info.name, info.identity.model, info.state)
    });
    format!("outboard {}\n{}", env!("CARGO_PKG_VERSION"), lines.collect::<String>())
}

/// `stats`: name and value of each counter, a line each.
pub(super) fn stats(disks: &Disks) -> String {
    let mut text = String::new();
    for disk in disks.ids() {
        let Some(info) = disks.info(disk) else { continue };
        let mut line = |name: &str, value: u64| {
            let _ = writeln!(text, "{} {name} {value}", info.name);
        };
        let counters = disks.counters(disk);
        line("file-reads", counters.reads);
        line("file-writes", counters.writes);
        line("file-bytes-read", counters.bytes_read);
        line("file-bytes-written", counters.bytes_written);
        line("file-merges", counters.merges);
        line("file-waits", counters.waits);
        line("file-errors", counters.errors);
        line("file-short", counters.short);
        line("active", counters.active);
        disks.driver_counters(disk, &mut line);
    }
    text
}
