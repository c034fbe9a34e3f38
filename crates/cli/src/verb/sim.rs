//! Tries drivers against the simulator.

use crate::args::{SimArgs, Tried};
use crate::{exit, print};
use anyhow::Result;
use indicatif::{ProgressBar, ProgressStyle};
use outboard_sim::fault::{Cost, FaultCounts};
use outboard_sim::trial::campaign::{Campaign, Totals};
use outboard_sim::trial::{TrialOptions, TrialReport, Tried as Subject};
use outboard_sim::{Fault, VirtioFault};
use serde::Serialize;
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

#[derive(Serialize)]
struct Summary {
    trials: u64,
    first_seed: u64,
    faults: u64,
    faults_by_kind: BTreeMap<&'static str, u64>,
    requests_good: u64,
    requests_failed: u64,
    virtual_seconds: u64,
    seconds: f64,
    violations: u64,
}

#[derive(Serialize)]
struct Failure<'a> {
    seed: u64,
    violations: &'a [String],
}

#[derive(Serialize)]
struct Kind {
    fault: &'static str,
    meaning: &'static str,
    costs: &'static str,
}

pub(crate) fn run(arguments: &SimArgs, json: bool) -> Result<ExitCode> {
    match arguments.device {
        Tried::Ahci => run_on::<Fault>(arguments, json),
        Tried::Virtio => run_on::<VirtioFault>(arguments, json),
    }
}

fn run_on<F: Subject>(arguments: &SimArgs, json: bool) -> Result<ExitCode> {
    if arguments.list {
        list::<F>(json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let only = match only::<F>(arguments) {
        Ok(only) => only,
        Err(unknown) => {
            print::error(&unknown, exit::USAGE, json);
            return Ok(ExitCode::from(exit::USAGE));
        }
    };
    if let Some(seed) = arguments.seed {
        return replay(seed, arguments, only, json);
    }
    let time = arguments.seconds.map(Duration::from_secs);
    // For a time means as many as fit into it, unless a number is given as well.
    let seeds = arguments.seeds.unwrap_or(if time.is_some() { u64::MAX } else { 1000 });
    let campaign = Campaign {
        first: arguments.from,
        seeds,
        time,
        jobs: arguments.jobs,
        options: TrialOptions::new(false, only),
    };
    let bar = progress(seeds, time, json);
    let began = Instant::now();
    let totals = campaign.run(&|totals| {
        match time {
            Some(_) => bar.set_position(began.elapsed().as_secs()),
            None => bar.set_position(totals.trials),
        }
        bar.set_message(format!(
            "{} faults, {} violations",
            totals.faults.total(),
            totals.violations
        ));
        true
    })?;
    bar.finish_and_clear();
    report(&totals, arguments, began.elapsed(), json)
}

/// The faults that are named, which the device has to have.
fn only<F: Subject>(arguments: &SimArgs) -> Result<Vec<F>, String> {
    let device = device(arguments);
    let parsed = arguments.only.iter().map(|name| {
        name.parse().map_err(|_| {
            format!(
                "the device has no fault {name:?}; `outboard sim --device {device} --list` names \
                 them all"
            )
        })
    });
    parsed.collect()
}

/// The device's name on the command line.
fn device(arguments: &SimArgs) -> &'static str {
    match arguments.device {
        Tried::Ahci => "ahci",
        Tried::Virtio => "virtio",
    }
}

fn progress(seeds: u64, time: Option<Duration>, json: bool) -> ProgressBar {
    if json {
        return ProgressBar::hidden();
    }
    let (length, unit) = time.map_or((seeds, "trials"), |time| (time.as_secs(), "s"));
    let template = format!("{{bar:30}} {{pos}}/{{len}} {unit}, {{msg}} ({{eta}} left)");
    let style = ProgressStyle::with_template(&template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(length).with_style(style)
}

fn list<F: Subject>(json: bool) -> Result<()> {
    for fault in F::ALL {
        let (name, meaning) = (fault.name(), fault.meaning());
        let kind = Kind { fault: name, meaning, costs: costs(fault.cost()) };
        if json {
            print::json("fault", &kind)?;
        } else {
            print::line_out(&format!("{:26} {meaning}", kind.fault))?;
            print::line_out(&format!("{:26}   It may cost {}.", "", kind.costs))?;
        }
    }
    Ok(())
}

const fn costs(cost: Cost) -> &'static str {
    match cost {
        Cost::Nothing => "nothing but time",
        Cost::Request => "the request that it strikes",
        Cost::Retries => "a request, if it strikes as often as that is tried",
        Cost::Sectors => "the sectors that it damages",
        Cost::Cache => "what was not flushed, which the next flush says",
        Cost::Disk => "the disk",
        Cost::Controller => "the controller",
    }
}

/// Runs one trial, and prints all that happens.
fn replay<F: Subject>(
    seed: u64,
    arguments: &SimArgs,
    only: Vec<F>,
    json: bool,
) -> Result<ExitCode> {
    let campaign = Campaign {
        first: seed,
        seeds: 1,
        time: None,
        jobs: None,
        options: TrialOptions::new(true, only),
    };
    let began = Instant::now();
    let totals = campaign.run(&|_| true)?;
    for line in &totals.last_trace {
        if json {
            print::json("trace", &BTreeMap::from([("line", line)]))?;
        } else {
            print::line_out(line)?;
        }
    }
    report(&totals, arguments, began.elapsed(), json)
}

fn report<F: Subject>(
    totals: &Totals<F>,
    arguments: &SimArgs,
    took: Duration,
    json: bool,
) -> Result<ExitCode> {
    for failure in &totals.failures {
        tell(failure, arguments, json)?;
    }
    let first_seed = arguments.seed.unwrap_or(arguments.from);
    let by_kind = |counts: &FaultCounts<F>| {
        counts.iter().filter(|(_, n)| *n > 0).map(|(f, n)| (f.name(), n)).collect()
    };
    let summary = Summary {
        trials: totals.trials,
        first_seed,
        faults: totals.faults.total(),
        faults_by_kind: by_kind(&totals.faults),
        requests_good: totals.good,
        requests_failed: totals.failed,
        virtual_seconds: totals.lasted.as_secs(),
        seconds: took.as_secs_f64(),
        violations: totals.violations,
    };
    if json {
        print::json("summary", &summary)?;
    } else {
        for (fault, count) in totals.faults.iter().filter(|(_, count)| *count > 0) {
            print::line_out(&format!("{count:>10}  {fault}"))?;
        }
        print::line_out(&format!(
            "{} trials, {} faults, {} violations; {} requests ended well, {} failed for a reason; \
             {:.1} s, for {} s of virtual time",
            summary.trials,
            summary.faults,
            summary.violations,
            summary.requests_good,
            summary.requests_failed,
            summary.seconds,
            summary.virtual_seconds
        ))?;
    }
    Ok(if totals.violations == 0 { ExitCode::SUCCESS } else { ExitCode::from(exit::FAILED) })
}

fn tell<F: Subject>(failure: &TrialReport<F>, arguments: &SimArgs, json: bool) -> Result<()> {
    if json {
        let TrialReport { seed, violations, .. } = failure;
        return Ok(print::json("violation", &Failure { seed: *seed, violations })?);
    }
    for violation in &failure.violations {
        print::line_out(&format!("seed {}: {violation}", failure.seed))?;
    }
    let device = match arguments.device {
        Tried::Ahci => String::new(),
        Tried::Virtio => format!("--device {} ", device(arguments)),
    };
    Ok(print::line_out(&format!("  all of it: outboard sim {device}--seed {}", failure.seed))?)
}
