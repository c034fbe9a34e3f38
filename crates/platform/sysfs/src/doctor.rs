//! What stands between this machine and drivers outside its kernel, and what to do about it.

mod function;
mod iommu;
mod process;
mod vfio;

use crate::{Function, Machine, SysfsError, System};
pub use process::Viewer;

/// How grave a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it should be.
    Good,
    /// Good to know; nothing has to be done.
    Note,
    /// Devices cannot be used before something was done.
    Trouble,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at, in a word or two.
    pub topic: &'static str,
    /// How grave it is.
    pub verdict: Verdict,
    /// What was found.
    pub text: String,
    /// What to do next, each a command or a sentence.
    pub next: Vec<String>,
}

impl Finding {
    fn new(topic: &'static str, verdict: Verdict, text: impl Into<String>) -> Self {
        Self { topic, verdict, text: text.into(), next: Vec::new() }
    }

    pub(crate) fn good(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(topic, Verdict::Good, text)
    }

    pub(crate) fn note(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(topic, Verdict::Note, text)
    }

    pub(crate) fn trouble(topic: &'static str, text: impl Into<String>) -> Self {
        Self::new(topic, Verdict::Trouble, text)
    }

    pub(crate) fn next(mut self, next: impl Into<String>) -> Self {
        self.next.push(next.into());
        self
    }
}

impl Machine {
    /// Looks at all that VFIO needs of the machine, as `viewer` sees it.
    pub fn diagnose(
        &self,
        viewer: &Viewer,
        system: &dyn System,
    ) -> Result<Vec<Finding>, SysfsError> {
        let mut findings = Vec::new();
        iommu::check(self, &mut findings)?;
        vfio::check(self, viewer, system, &mut findings)?;
        process::check(self, viewer, &mut findings);
        Ok(findings)
    }

    /// Looks at one function: whether it can be bound, and used if it is.
    pub fn diagnose_function(
        &self,
        function: &Function,
        viewer: &Viewer,
        system: &dyn System,
    ) -> Result<Vec<Finding>, SysfsError> {
        let mut findings = Vec::new();
        function::check(self, function, viewer, system, &mut findings)?;
        Ok(findings)
    }
}

#[cfg(test)]
mod tests;
