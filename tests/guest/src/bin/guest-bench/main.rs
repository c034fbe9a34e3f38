//! Measures one disk through the kernel's driver and through ours, in one boot of a guest.
#![forbid(unsafe_code)]

mod plot;
mod result;

use anyhow::{Context, Result, bail};
use clap::Parser;
use outboard_guest::{Device, Disk, Guest};
use result::{CASES, Outcome, SCHEMA, WAYS};
use std::fmt::Write as _;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const SCRIPT: &str = include_str!("measure.sh");
/// The disk, which reads as zeros: storage is not the limit.
const DISK_BYTES: u64 = 1 << 30;
/// What a measurement takes beside its time: starting, warming up, handing over. Generous, as the
/// machine may be busy.
const OVERHEAD_SECONDS: u64 = 60;

/// Measure one disk through the kernel's driver (fio, `io_uring`) and through ours, in one boot.
///
/// The disk is QEMU's AHCI controller's, and reads as zeros. Rounds alternate between the drivers,
/// so that what else the machine does strikes both.
#[derive(Debug, Parser)]
#[command(name = "guest-bench")]
struct Arguments {
    /// How many rounds
    #[arg(long, value_name = "N", default_value_t = 5)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// How long each measurement takes, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 3)]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,

    /// How many processors the guest has
    #[arg(long, value_name = "N", default_value_t = 1)]
    processors: u32,

    /// Write the result (guest.json) and its plot (guest.svg) into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,

    /// Let the kernel's driver go through the IOMMU, too, for which it maps each transfer; ours
    /// always does, and maps once
    #[arg(long)]
    translate: bool,

    /// Use this `outboard`, statically linked, rather than building one
    #[arg(long, value_name = "FILE")]
    program: Option<PathBuf>,

    /// Measure a simulated disk rather than the real one through our driver, to try the bench itself
    #[arg(long)]
    simulated: bool,
}

fn main() -> ExitCode {
    let result = run(&Arguments::parse());
    let Err(error) = result else { return ExitCode::SUCCESS };
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
    ExitCode::FAILURE
}

fn run(arguments: &Arguments) -> Result<()> {
    let outcome = measure(arguments)?;
    std::io::stdout().write_all(table(&outcome).as_bytes())?;
    if let Some(folder) = &arguments.out {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
        let write = |path: &Path, text: String| {
            std::fs::write(path, text).with_context(|| path.display().to_string())
        };
        write(&folder.join("guest.json"), serde_json::to_string_pretty(&outcome)? + "\n")?;
        write(&folder.join("guest.svg"), plot::svg(&outcome))?;
    }
    Ok(())
}

fn measure(arguments: &Arguments) -> Result<Outcome> {
    let Arguments { rounds, seconds, processors, simulated, .. } = *arguments;
    let cases = CASES.iter().map(|case| {
        let (theirs, ours) = (case.fio_pattern, case.our_pattern);
        format!("{} {theirs} {ours} {} {}", case.name, case.bytes, case.depth)
    });
    let measurements = u64::from(rounds) * (CASES.len() * WAYS.len()) as u64;
    let limit = Duration::from_secs(measurements * (seconds + OVERHEAD_SECONDS));
    let simulation = if simulated { "--sim /tmp/disk.img" } else { "" };
    let mut guest = Guest::new("bench");
    if let Some(path) = &arguments.program {
        guest = guest.program(path);
    }
    let report = guest
        .device(Device::Ahci(vec![Disk::Null(DISK_BYTES)]))
        .tool("fio")
        .processors(processors)
        .parameter(if arguments.translate { "iommu.strict=0" } else { "iommu=pt" })
        .limit(limit)
        .variable("CASES", &cases.collect::<Vec<_>>().join("\n"))
        .variable("ROUNDS", &rounds.to_string())
        .variable("SECONDS_EACH", &seconds.to_string())
        .variable("SIMULATED", simulation)
        .run(&format!("truncate -s 256M /tmp/disk.img\n{SCRIPT}"))?;
    if report.code != 0 {
        bail!("{report}");
    }
    let cases = CASES.iter().map(|case| result::read(&report, *case, rounds, processors));
    Ok(Outcome {
        schema: SCHEMA,
        kind: "guest-bench",
        kernel: report.text("kernel").unwrap_or_default().trim().to_owned(),
        rounds,
        seconds_each: seconds,
        processors,
        kernel_through_iommu: arguments.translate,
        simulated,
        cases: cases.collect::<Result<_>>()?,
    })
}

fn table(outcome: &Outcome) -> String {
    let mut text = String::new();
    if outcome.simulated {
        text.push_str("Ours is a simulated disk: the comparison means nothing.\n");
    }
    let _ = writeln!(
        text,
        "{:<30} {:<11} {:>9} {:>19} {:>8} {:>8} {:>8} {:>9} {:>7}",
        "what", "way", "per s", "slowest – fastest", "MB/s", "p50 µs", "p99 µs", "CPU µs", "times"
    );
    for case in &outcome.cases {
        for name in WAYS {
            let Some(way) = case.ways.get(name) else { continue };
            let _ = writeln!(
                text,
                "{:<30} {name:<11} {:>9.0} {:>8.0} – {:>8.0} {:>8.1} {:>8.1} {:>8.1} {:>9.1} {:>6.2}×",
                case.case.title,
                way.per_second.median,
                way.per_second.min,
                way.per_second.max,
                way.megabytes_per_second,
                way.p50_us.median,
                way.p99_us.median,
                way.cpu_us_each.median,
                way.times_the_kernel
            );
        }
    }
    text
}
