//! Texts that clients are in the middle of.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What all of them may take. Beyond it a text is made anew at each read, so that it may change
/// between two of them.
const MOST_BYTES: usize = 16 << 20;

/// How many bytes are kept.
#[derive(Debug, Clone, Default)]
pub(super) struct Kept(Arc<AtomicUsize>);

/// A text that is kept.
#[derive(Debug)]
pub(super) struct Text {
    pub(super) text: String,
    kept: Kept,
}

impl Kept {
    /// Keeps a text, unless there are too many.
    pub(super) fn keep(&self, text: String) -> Option<Text> {
        let before = self.0.fetch_add(text.capacity(), Ordering::Relaxed);
        let kept = Text { text, kept: self.clone() };
        (before + kept.text.capacity() <= MOST_BYTES).then_some(kept)
    }
}

impl Drop for Text {
    fn drop(&mut self) {
        self.kept.0.fetch_sub(self.text.capacity(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_may_be() {
        let (kept, text) = (Kept::default(), || "x".repeat(MOST_BYTES / 4));
        let mut texts: Vec<_> = (0..4).map(|_| kept.keep(text()).unwrap()).collect();
        assert!(kept.keep(text()).is_none() && kept.keep("x".to_owned()).is_none());
        texts.pop();
        assert_eq!(kept.keep(text()).unwrap().text.len(), MOST_BYTES / 4);
        texts.clear();
        assert_eq!(kept.0.load(Ordering::Relaxed), 0);
    }
}
