//! Completions and manual pages, from the definitions of the command line.

use crate::args::{Arguments, CompletionsArgs, ManArgs};
use crate::print;
use anyhow::{Context, Result};
use clap::CommandFactory;

pub(crate) fn completions(arguments: &CompletionsArgs) -> Result<()> {
    // It panics when it cannot write, which a vector never refuses.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "outboard", &mut script);
    Ok(print::raw_out(&script)?)
}

pub(crate) fn pages(arguments: &ManArgs) -> Result<()> {
    let folder = &arguments.folder;
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Arguments::command(), folder));
    written.with_context(|| format!("cannot write manual pages to {}", folder.display()))
}
