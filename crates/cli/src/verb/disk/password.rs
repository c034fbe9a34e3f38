//! Passwords: from a file, from standard input, or typed without being shown.

use crate::args::PasswordArg;
use anyhow::{Context, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios};
use rustix::termios::{tcgetattr, tcsetattr};
use std::fs::File;
use std::hint::black_box;
use std::io::{self, IsTerminal, Read, Write};

/// Bytes that a disk's password may have.
const MOST: usize = 32;

/// Bytes that are wiped when they are no longer needed.
pub(super) struct Secret(pub(super) Vec<u8>);

impl Secret {
    /// Nothing yet, with room for so many bytes: growing would leave a copy behind.
    pub(super) fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.fill(0);
        // Lest the compiler finds that nobody looks at it any more.
        black_box(&mut self.0);
    }
}

/// The password that the user means. `twice`: one that is new is asked for twice.
pub(super) fn password(source: &PasswordArg, twice: bool) -> Result<Secret> {
    let secret = match &source.password_file {
        Some(path) if path.as_os_str() == "-" => from(&mut io::stdin().lock())?,
        Some(path) => {
            let named = || path.display().to_string();
            from(&mut File::open(path).with_context(named)?).with_context(named)?
        }
        None if io::stdin().is_terminal() => {
            let first = ask("Password: ")?;
            if twice && ask("Once more: ")?.0 != first.0 {
                bail!("these were two different passwords; nothing was done");
            }
            first
        }
        None => bail!(
            "there is no terminal to ask for the password at; give it with --password-file FILE, \
             or --password-file - for standard input"
        ),
    };
    if secret.0.is_empty() || secret.0.len() > MOST {
        bail!("a disk's password has 1 to {MOST} bytes, and this has {}", secret.0.len());
    }
    Ok(secret)
}

/// All that there is, without a line's end. What is too long to be a password is not read on.
fn from(source: &mut dyn Read) -> Result<Secret> {
    let mut secret = Secret(vec![0; MOST + 2]);
    let count = crate::verb::write::fill(source, &mut secret.0)?;
    secret.0.truncate(count);
    for end in [b'\n', b'\r'] {
        if secret.0.last() == Some(&end) {
            secret.0.pop();
        }
    }
    Ok(secret)
}

/// The terminal as it was, to be set again.
struct Quiet(Termios);

impl Quiet {
    /// Shows nothing that is typed and passes on each key, so that Ctrl-C does not leave the
    /// terminal like this.
    fn new() -> Result<Self> {
        let before = tcgetattr(io::stdin()).context("the terminal")?;
        let mut quiet = before.clone();
        quiet.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        quiet.special_codes[SpecialCodeIndex::VMIN] = 1;
        quiet.special_codes[SpecialCodeIndex::VTIME] = 0;
        tcsetattr(io::stdin(), OptionalActions::Flush, &quiet).context("the terminal")?;
        Ok(Self(before))
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = tcsetattr(io::stdin(), OptionalActions::Flush, &self.0);
        let _ = writeln!(io::stderr());
    }
}

fn ask(prompt: &str) -> Result<Secret> {
    let mut out = io::stderr();
    write!(out, "{prompt}")?;
    out.flush()?;
    let _quiet = Quiet::new()?;
    let mut secret = Secret::with_capacity(MOST + 1);
    let mut key = [0; 1];
    loop {
        // Without a buffer, which nobody would wipe.
        if rustix::io::read(io::stdin(), &mut key)? == 0 {
            return Ok(secret);
        }
        match key[0] {
            b'\n' | b'\r' | 0x04 => return Ok(secret),
            0x03 => bail!("ended by Ctrl-C; nothing was done"),
            0x08 | 0x7f => drop(secret.0.pop()),
            0x15 => secret.0.clear(),
            byte if secret.0.len() <= MOST => secret.0.push(byte),
            // It is too long already.
            _ => {}
        }
        key = [0; 1];
    }
}

/// A command with a password in it: what comes before, the password in hexadecimal, and what
/// comes behind.
pub(super) fn command(before: &str, password: &Secret, behind: &str) -> Secret {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let room = before.len() + behind.len() + 2 * password.0.len() + 8;
    let mut command = Secret::with_capacity(room);
    command.0.extend_from_slice(before.as_bytes());
    command.0.extend_from_slice(b" hex:");
    for byte in &password.0 {
        let digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 0xf)]];
        command.0.extend_from_slice(&digits);
    }
    if !behind.is_empty() {
        command.0.push(b' ');
        command.0.extend_from_slice(behind.as_bytes());
    }
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_end_does_not_belong_to_a_password_and_all_else_does() {
        for (file, password) in [("a b\n", "a b"), ("x\r\n", "x"), ("y\n\n", "y\n"), ("", "")] {
            assert_eq!(from(&mut file.as_bytes()).unwrap().0, password.as_bytes());
        }
        assert!(from(&mut &[b'x'; 1000][..]).unwrap().0.len() > MOST, "seen to be too long");
    }

    #[test]
    fn commands_have_passwords_in_hexadecimal() {
        let secret = Secret(b"a b\xff".to_vec());
        assert_eq!(command("unlock", &secret, "").0, b"unlock hex:612062ff");
        assert_eq!(command("security set", &secret, "S 1").0, b"security set hex:612062ff S 1");
    }
}
