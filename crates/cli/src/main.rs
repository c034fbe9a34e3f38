//! The program `outboard`: thin, one file for each verb.
#![forbid(unsafe_code)]

mod args;
mod bench;
mod drivers;
mod endpoint;
mod exit;
mod function;
mod hosting;
mod pci_ids;
mod print;
mod remote;
mod verb;

use args::{Arguments, Verb};
use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    init_log(arguments.verbose, arguments.quiet);
    if arguments.quiet {
        print::be_quiet();
    }
    let json = arguments.json;
    match run(arguments) {
        Ok(code) => code,
        Err(error) => exit::report(&error, json),
    }
}

fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let json = arguments.json;
    match arguments.verb {
        Verb::Serve(serve) => return verb::serve::run(serve, json),
        Verb::Sim(sim) => return verb::sim::run(&sim, json),
        Verb::List(list) => verb::list::run(list, json)?,
        Verb::Bind(bind) => verb::bind::bind(&bind, json)?,
        Verb::Unbind(unbind) => verb::bind::unbind(&unbind, json)?,
        Verb::Status(status) => verb::status::run(&status, json)?,
        Verb::Doctor(doctor) => return verb::doctor::run(&doctor, json),
        Verb::Ls(ls) => verb::ls::run(&ls, json)?,
        Verb::Cat(cat) => verb::cat::run(&cat, json)?,
        Verb::Read(read) => verb::read::run(&read, json)?,
        Verb::Write(write) => verb::write::run(&write, json)?,
        Verb::Cp(cp) => verb::cp::run(&cp, json)?,
        Verb::Disk(disk) => return verb::disk::run(&disk, json),
        Verb::Bench(bench) => verb::bench::run(&bench, json)?,
        Verb::Completions(completions) => verb::manual::completions(&completions)?,
        Verb::Man(man) => verb::manual::pages(&man)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Messages go to standard error; `OUTBOARD_LOG` overrides the options (as in `debug` or
/// `outboard_ahci=trace`).
fn init_log(verbose: u8, quiet: bool) {
    use tracing_subscriber::EnvFilter;
    let level = match (quiet, verbose) {
        (true, _) => "error",
        (false, 0) => "info",
        (false, 1) => "debug",
        (false, _) => "trace",
    };
    let filter = EnvFilter::try_from_env("OUTBOARD_LOG").unwrap_or_else(|_| level.into());
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would report a line that could not be written with a macro that panics then.
        .log_internal_errors(false)
        .with_ansi(colours)
        .with_target(false)
        .without_time()
        .init();
}
