//! Passwords.

use outboard_block::manage::PASSWORD_BYTES;
use std::fmt;
use std::hint::black_box;

/// A password, wiped when it is no longer needed and never printed.
#[derive(PartialEq, Eq)]
pub(in crate::sd) struct Secret {
    bytes: [u8; PASSWORD_BYTES],
    len: usize,
}

/// How a password is written.
const FORM: &str = "a password is text:WORD or hex:DIGITS, of 1 to 32 bytes";

impl Secret {
    /// Reads a password: after `text:` as it is, after `hex:` two digits a byte.
    pub(super) fn parse(word: &str) -> Result<Self, String> {
        let mut secret = Self { bytes: [0; PASSWORD_BYTES], len: 0 };
        if let Some(text) = word.strip_prefix("text:") {
            text.bytes().try_for_each(|byte| secret.push(byte))?;
        } else if let Some(digits) = word.strip_prefix("hex:") {
            for pair in digits.as_bytes().chunks(2) {
                let [high, low] = pair else { return Err(FORM.into()) };
                let digit = |digit: u8| (digit as char).to_digit(16).ok_or(FORM);
                secret.push((digit(*high)? << 4 | digit(*low)?) as u8)?;
            }
        }
        if secret.len == 0 { Err(FORM.into()) } else { Ok(secret) }
    }

    fn push(&mut self, byte: u8) -> Result<(), String> {
        *self.bytes.get_mut(self.len).ok_or(FORM)? = byte;
        self.len += 1;
        Ok(())
    }

    pub(in crate::sd) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.bytes.fill(0);
        // Lest the compiler finds that nobody looks at it any more.
        black_box(&mut self.bytes);
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_read_as_text_or_hexadecimal_and_never_shown() {
        assert_eq!(Secret::parse("text:pass:word").unwrap().bytes(), b"pass:word");
        assert_eq!(Secret::parse("hex:00fF20").unwrap().bytes(), [0, 0xff, 0x20]);
        assert_eq!(Secret::parse(&format!("text:{}", "x".repeat(32))).unwrap().bytes().len(), 32);
        assert_eq!(format!("{:?}", Secret::parse("text:a").unwrap()), "Secret");
        let long = format!("hex:{}", "00".repeat(33));
        for word in ["", "a", "text:", "hex:", "hex:0", "hex:0g", "hex:+1", long.as_str()] {
            let error = Secret::parse(word).unwrap_err();
            assert!(error.contains("text:WORD"), "{word}: {error}");
        }
    }
}
