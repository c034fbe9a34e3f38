//! Measures drivers and server: in the lab, with a simulated disk, or on hardware.

use crate::args::{self, BenchArgs, Pattern, Through};
use crate::bench::{Measurement, Setup, Target, driver, ninep};
use crate::print;
use anyhow::{Context, Result, bail};
use outboard_host::Reaping;
use outboard_lab::DiskConfig;
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Bytes of the scratch image.
const SCRATCH_BYTES: usize = 256 << 20;
/// Bytes of a disk of zeros.
const NULL_BYTES: u64 = 1 << 30;

pub(crate) fn run(arguments: &BenchArgs, json: bool) -> Result<()> {
    let scratch = tempfile::tempdir().context("no folder for a scratch image")?;
    let attached = arguments.attach_vhost_user.as_ref();
    let disk = match (&arguments.lab, &arguments.sim, arguments.pci, attached) {
        (Some(disk), ..) => Target::Lab(disk.clone()),
        (_, Some(disk), ..) => Target::Sim(disk.clone()),
        (.., Some(disk)) => Target::VhostUser(disk.clone()),
        (_, _, Some(address), _) => {
            Target::Pci(address, args::confinement(arguments.let_devices_reach_all_memory))
        }
        _ if arguments.null => Target::Lab(DiskConfig::null(NULL_BYTES)),
        _ => Target::Lab(make_scratch(scratch.path(), json)?),
    };
    let given = arguments.lab.is_some() || arguments.sim.is_some() || arguments.pci.is_some();
    let given = given || attached.is_some();
    let setups = setups(arguments);
    let writes = setups.iter().any(|setup| setup.is_write());
    if writes && given && !arguments.yes {
        bail!("writing would destroy what is on that disk; to do it, add --yes");
    }
    if !json {
        print::line_out(&Measurement::heading())?;
    }
    for setup in setups {
        let measured = match setup.through {
            Through::Driver => driver::measure(&disk, &setup)?,
            Through::Ninep => ninep::measure(&disk, &setup)?,
        };
        if json {
            print::json("measurement", &measured)?;
        } else {
            print::line_out(&measured.line())?;
        }
    }
    Ok(())
}

/// What is to be measured: what was asked for, or the usual set.
fn setups(arguments: &BenchArgs) -> Vec<Setup> {
    let seconds = Duration::from_secs(arguments.seconds);
    let setup = |through, pattern, bytes: u64, depth, reaping| {
        let bytes = bytes.clamp(512, 1 << 20).next_multiple_of(512) as usize;
        Setup { through, pattern, bytes, depth, reaping, seconds }
    };
    if let Some(pattern) = arguments.pattern {
        let BenchArgs { through, size, depth, reap, .. } = *arguments;
        return vec![setup(through, pattern, size, depth, reap.into())];
    }
    use Reaping::{Adaptive, Interrupts, Polling};
    let (random, sequential) = (Pattern::Randread, Pattern::Read);
    vec![
        setup(Through::Driver, random, 4096, 1, Interrupts),
        setup(Through::Driver, random, 4096, 1, Adaptive),
        setup(Through::Driver, random, 4096, 32, Interrupts),
        setup(Through::Driver, random, 4096, 32, Adaptive),
        setup(Through::Driver, random, 4096, 32, Polling),
        setup(Through::Driver, sequential, 1 << 20, 4, Adaptive),
        setup(Through::Ninep, random, 4096, 1, Adaptive),
        setup(Through::Ninep, random, 4096, 32, Adaptive),
        setup(Through::Ninep, sequential, 1 << 20, 8, Adaptive),
    ]
}

/// An image full of something, so that nothing of it is a hole.
fn make_scratch(folder: &std::path::Path, json: bool) -> Result<DiskConfig> {
    let path = folder.join("scratch.img");
    if !json && std::io::stderr().is_terminal() {
        print::note(&format!("Making a scratch image of {} …", print::bytes(SCRATCH_BYTES as u64)));
    }
    let mut file = std::fs::File::create(&path)?;
    let mut chunk = vec![0u8; 1 << 20];
    for index in 0..SCRATCH_BYTES / chunk.len() {
        chunk.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 7 + index) as u8 | 1);
        file.write_all(&chunk)?;
    }
    Ok(DiskConfig::image(path))
}
