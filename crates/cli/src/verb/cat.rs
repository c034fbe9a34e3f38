//! Prints files.

use crate::args::CatArgs;
use crate::print;
use crate::remote::{self, TransferError};
use crate::verb::read::Content;
use anyhow::{Context, Result};
use outboard_ninep::client::Mode;

pub(crate) fn run(arguments: &CatArgs, json: bool) -> Result<()> {
    let client = &mut remote::connect(&arguments.server)?;
    for path in &arguments.paths {
        let (fid, _) = remote::open(client, path, Mode::Read)?;
        let copied = if json {
            Content::gather(client, &fid, 0, u64::MAX)
                .and_then(|content| content.print(remote::path(path)))
        } else {
            let print = |bytes: &[u8]| Ok::<_, TransferError>(print::raw_out(bytes)?);
            client.read_range(&fid, 0, u64::MAX, print).map(|_| ())
        };
        copied.with_context(|| path.clone())?;
        client.clunk(fid)?;
    }
    Ok(())
}
