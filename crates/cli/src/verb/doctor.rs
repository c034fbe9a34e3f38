//! Says what stands between this machine and drivers outside its kernel.

use crate::args::DoctorArgs;
use crate::{drivers, exit, print};
use anyhow::Result;
use outboard_sysfs::{Finding, Function, Linux, Machine, Verdict, Viewer};
use serde::Serialize;
use std::process::ExitCode;

#[derive(Serialize)]
struct Found<'a> {
    topic: &'a str,
    verdict: &'a str,
    text: &'a str,
    next: &'a [String],
}

pub(crate) fn run(arguments: &DoctorArgs, json: bool) -> Result<ExitCode> {
    let machine = Machine::here();
    let viewer = Viewer::this_process();
    // First, so that a wrong address is the only thing that is said.
    let function = arguments.address.map(|address| machine.function(address)).transpose()?;
    let mut findings = machine.diagnose(&viewer, &Linux)?;
    if let Some(function) = &function {
        findings.push(driver(function));
        findings.extend(machine.diagnose_function(function, &viewer, &Linux)?);
    }
    // What is bound was found among all, and again as what was asked for.
    let mut seen: Vec<&Finding> = Vec::new();
    for finding in &findings {
        if !seen.contains(&finding) {
            seen.push(finding);
            report(finding, json)?;
        }
    }
    let trouble = seen.iter().any(|finding| finding.verdict == Verdict::Trouble);
    Ok(if trouble { ExitCode::from(exit::FAILED) } else { ExitCode::SUCCESS })
}

/// Whether there is a driver of ours.
fn driver(function: &Function) -> Finding {
    let (address, class) = (function.address, function.identity.class);
    let (verdict, text, next) = match drivers::fitting(&function.identity) {
        Some(name) => (Verdict::Good, format!("{name} drives {address}"), Vec::new()),
        None => {
            let text = format!("Outboard has none for {address} (class {class})");
            (Verdict::Trouble, text, vec!["outboard status".to_owned()])
        }
    };
    Finding { topic: "driver", verdict, text, next }
}

fn report(finding: &Finding, json: bool) -> Result<()> {
    let Finding { topic, verdict, text, next } = finding;
    let word = match verdict {
        Verdict::Good => "good",
        Verdict::Note => "note",
        Verdict::Trouble => "trouble",
    };
    if json {
        return Ok(print::json("finding", &Found { topic, verdict: word, text, next })?);
    }
    print::line_out(&format!("{word:<8} {topic}: {text}"))?;
    for step in next {
        print::line_out(&format!("         → {step}"))?;
    }
    Ok(())
}
