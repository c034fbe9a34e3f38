//! What the text files say.

mod health;

pub(super) use health::smart;

use outboard_block::disk::{DiskId, Disks, Histogram};
use outboard_block::manage::{LinkPower, Power, Security, Switch};
use outboard_block::{Features, Geometry};
use std::fmt::Write;

/// Heads and sectors of a track that tools pretend, since long before disks hid theirs.
const HEADS: u64 = 255;
const SECTORS_OF_TRACK: u64 = 63;

/// A disk's `ctl`: first what names it, then what sd(3) gives, then what is wrong with it.
pub(super) fn control(disks: &Disks, disk: DiskId) -> String {
    let mut text = String::new();
    let Some(info) = disks.info(disk) else { return text };
    let (identity, geometry, features) = (&info.identity, &info.geometry, &info.features);
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
    line("cache", &cache(features, geometry));
    line("trim", &yes(geometry.max_discard_sectors > 0));
    line("access", &if geometry.read_only { "read-only" } else { "read-write" });
    line("generation", &info.generation);
    line("removable", &yes(features.removable));
    line("health", &switch(features.health));
    line("self-tests", &yes(features.self_tests));
    line("power", &power(features));
    line("look-ahead", &switch(features.look_ahead));
    match features.advanced_power {
        Switch::On => line("apm", &features.power_level),
        other => line("apm", &switch(other)),
    }
    line("security", &security(&features.security));
    if features.security.supported {
        let Security { erase_minutes, enhanced_erase_minutes, .. } = features.security;
        line("erase-minutes", &erase_minutes);
        if let Some(minutes) = enhanced_erase_minutes {
            line("enhanced-erase-minutes", &minutes);
        }
    }
    line("capacity", &if features.capacity { "settable" } else { "fixed" });
    if let Some(sectors) = features.native_sectors {
        line("native", &sectors);
    }
    line("link", &features.link_speed);
    line("link-power", &link_power(features.link_power));
    line("link-power-most", &link_power(features.link_power_most));
    line("lights", &yes(features.lights));
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
    let present = disks.ids().filter(|disk| disks.is_present(*disk));
    let infos = present.filter_map(|disk| disks.info(disk));
    let lines = infos.map(|info| {
        let bytes = info.geometry.bytes();
        format!("disk {} {bytes} {} {}\n", info.name, info.identity.model, info.state)
    });
    format!("outboard {}\n{}", env!("CARGO_PKG_VERSION"), lines.collect::<String>())
}

/// `stats` of all disks: disk, name and value of each counter, a line each.
pub(super) fn stats(disks: &Disks) -> String {
    let mut text = String::new();
    for disk in disks.ids().filter(|disk| disks.is_present(*disk)) {
        let Some(info) = disks.info(disk) else { continue };
        counters(disks, disk, &mut |name, value| {
            let _ = writeln!(text, "{} {name} {value}", info.name);
        });
    }
    text
}

/// A disk's `stats`: name and value of each counter, a line each, and how long requests took.
pub(super) fn disk_stats(disks: &Disks, disk: DiskId) -> String {
    let mut text = String::new();
    counters(disks, disk, &mut |name, value| {
        let _ = writeln!(text, "{name} {value}");
    });
    disks.counters(disk).errors_by_kind.each(|kind, value| {
        let _ = writeln!(text, "errors-{kind} {value}");
    });
    let Some(latencies) = disks.latencies(disk) else { return text };
    let kinds =
        [("read", &latencies.reads), ("write", &latencies.writes), ("flush", &latencies.flushes)];
    for (kind, histogram) in kinds {
        times(kind, histogram, &mut text);
    }
    text
}

/// How long requests of a kind took, in microseconds; nothing if there were none.
fn times(kind: &str, histogram: &Histogram, text: &mut String) {
    let named = [
        ("p50", histogram.percentile_us(50)),
        ("p99", histogram.percentile_us(99)),
        ("max", histogram.max_us()),
    ];
    for (name, us) in named {
        if let Some(us) = us {
            let _ = writeln!(text, "{kind}-us-{name} {us}");
        }
    }
}

fn counters(disks: &Disks, disk: DiskId, line: &mut dyn FnMut(&'static str, u64)) {
    let counters = disks.counters(disk);
    line("file-reads", counters.reads);
    line("file-writes", counters.writes);
    line("file-bytes-read", counters.bytes_read);
    line("file-bytes-written", counters.bytes_written);
    line("file-bytes-lent", counters.bytes_lent);
    line("file-merges", counters.merges);
    line("file-waits", counters.waits);
    line("file-errors", counters.errors);
    line("file-short", counters.short);
    line("active", counters.active);
    line("active-peak", counters.active_peak);
    disks.driver_counters(disk, line);
}

const fn yes(yes: bool) -> &'static str {
    if yes { "yes" } else { "no" }
}

/// `none` is for what a disk does not have.
const fn switch(switch: Switch) -> &'static str {
    match switch {
        Switch::Absent => "none",
        Switch::Off => "off",
        Switch::On => "on",
    }
}

/// Whether writes are cached; a disk need not be able to switch that.
const fn cache(features: &Features, geometry: &Geometry) -> &'static str {
    match features.write_cache {
        Switch::Absent if geometry.write_cache => "on",
        Switch::Absent => "off",
        other => switch(other),
    }
}

const fn power(features: &Features) -> &'static str {
    match features.power {
        Power::Unknown => "unknown",
        Power::Active => "active",
        Power::Idle => "idle",
        Power::Standby => "standby",
        Power::Sleep => "sleep",
    }
}

const fn link_power(power: LinkPower) -> &'static str {
    match power {
        LinkPower::Full => "full",
        LinkPower::Partial => "partial",
        LinkPower::Slumber => "slumber",
        LinkPower::DeviceSleep => "devsleep",
    }
}

/// All that is true of a disk's passwords, in words.
fn security(security: &Security) -> String {
    if !security.supported {
        return "none".to_owned();
    }
    let Security { enabled, locked, frozen, expired, maximum, .. } = *security;
    let mut words = vec![if enabled { "enabled" } else { "disabled" }];
    let facts =
        [(locked, "locked"), (frozen, "frozen"), (expired, "expired"), (maximum, "maximum")];
    words.extend(facts.into_iter().filter(|(is, _)| *is).map(|(_, word)| word));
    words.join(" ")
}
