//! Runs a part a number of times, for a tool that counts instructions.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, times] = arguments.as_slice() else { return ExitCode::from(2) };
    let (Some(part), Ok(times)) = (outboard_bench::part(name), times.parse::<u64>()) else {
        return ExitCode::from(2);
    };
    let mut run = (part.make)();
    (0..times).for_each(|_| run());
    ExitCode::SUCCESS
}
