//! What a port has done, in numbers.

/// Counts since the driver started. They never wrap in practice and are never reset.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counters {
    pub(crate) reads: u64,
    pub(crate) writes: u64,
    pub(crate) flushes: u64,
    pub(crate) discards: u64,
    /// What was asked and told beside the data.
    pub(crate) manage: u64,
    pub(crate) sectors_read: u64,
    pub(crate) sectors_written: u64,
    /// Doorbells rung: each is a batch of commands.
    pub(crate) kicks: u64,
    pub(crate) failed: u64,
    /// Commands issued again after they have failed.
    pub(crate) retried: u64,
    pub(crate) device_errors: u64,
    pub(crate) transport_errors: u64,
    pub(crate) timeouts: u64,
    pub(crate) port_resets: u64,
    pub(crate) hba_resets: u64,
    /// Commands found ended at a check-up, without an interrupt.
    pub(crate) missed_interrupts: u64,
    /// How often a disk was woken from sleep.
    pub(crate) wakes: u64,
    /// Devices that appeared.
    pub(crate) plugs: u64,
    /// Devices that went.
    pub(crate) unplugs: u64,
    /// Failures of the link, fatal or not.
    pub(crate) interface_errors: u64,
    /// Looks at PxSERR that found errors which link or HBA had recovered from.
    pub(crate) recovered_errors: u64,
    /// Times that the link was made slower.
    pub(crate) slower_links: u64,
    /// Unknown FISes, as far as they were noticed.
    pub(crate) unknown_fises: u64,
    /// Commands issued again because others may have failed.
    pub(crate) requeued: u64,
    /// Devices given up.
    pub(crate) given_up: u64,
}

impl Counters {
    pub(crate) fn each(&self, counter: &mut dyn FnMut(&'static str, u64)) {
        let Self {
            reads,
            writes,
            flushes,
            discards,
            manage,
            sectors_read,
            sectors_written,
            kicks,
            failed,
            retried,
            device_errors,
            transport_errors,
            timeouts,
            port_resets,
            hba_resets,
            missed_interrupts,
            wakes,
            plugs,
            unplugs,
            interface_errors,
            recovered_errors,
            slower_links,
            unknown_fises,
            requeued,
            given_up,
        } = *self;
        counter("reads", reads);
        counter("writes", writes);
        counter("flushes", flushes);
        counter("discards", discards);
        counter("manage", manage);
        counter("sectors-read", sectors_read);
        counter("sectors-written", sectors_written);
        counter("kicks", kicks);
        counter("failed", failed);
        counter("retried", retried);
        counter("device-errors", device_errors);
        counter("transport-errors", transport_errors);
        counter("timeouts", timeouts);
        counter("port-resets", port_resets);
        counter("hba-resets", hba_resets);
        counter("missed-interrupts", missed_interrupts);
        counter("wakes", wakes);
        counter("plugs", plugs);
        counter("unplugs", unplugs);
        counter("interface-errors", interface_errors);
        counter("recovered-errors", recovered_errors);
        counter("slower-links", slower_links);
        counter("unknown-fises", unknown_fises);
        counter("requeued", requeued);
        counter("given-up", given_up);
    }
}
