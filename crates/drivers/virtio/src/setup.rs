//! Setting a device up, of whatever kind it is (§3.1.1).

use crate::VirtioError;
use crate::queue::{Queue, Token};
use crate::spec::features::Features;
use crate::spec::split::MAX_ENTRIES;
use crate::spec::status::Status;
use crate::transport::Transport;
use outboard_hw::dma::DmaSpace;

/// The features of rings and transports that all drivers here know.
pub(crate) const KNOWN: Features = Features::INDIRECT
    .union(Features::EVENT_INDEX)
    .union(Features::VERSION_1)
    .union(Features::ACCESS_PLATFORM)
    .union(Features::PACKED)
    .union(Features::IN_ORDER)
    .union(Features::ORDER_PLATFORM)
    .union(Features::NOTIFICATION_DATA)
    .union(Features::NOTIF_CONFIG_DATA);

/// Greets a device that was reset, and agrees with it upon those of its features that `choose`
/// takes, up to the step before its configuration is read.
pub(crate) fn negotiate<T: Transport>(
    transport: &mut T,
    choose: impl FnOnce(u64) -> u64,
) -> Result<(u64, Status), VirtioError> {
    let mut status = Status::ACKNOWLEDGE | Status::DRIVER;
    transport.set_status(Status::ACKNOWLEDGE);
    transport.set_status(status);
    let offered = transport.offered_features();
    if transport.is_legacy() {
        // Half of the features are from later on, and nobody confirms the others (§3.1.2).
        let features = choose(offered & u64::from(u32::MAX)) & offered & u64::from(u32::MAX);
        transport.accept_features(features);
        return Ok((features, status));
    }
    let features = choose(offered) & offered;
    if features & Features::VERSION_1.bits() == 0 {
        return Err(VirtioError::Draft);
    }
    transport.accept_features(features);
    status |= Status::FEATURES_OK;
    transport.set_status(status);
    match transport.status().contains(Status::FEATURES_OK) {
        true => Ok((features, status)),
        false => Err(VirtioError::FeaturesRefused),
    }
}

/// Makes a queue with as many entries as the device has for it, and at most so many where that can
/// be chosen.
pub(crate) fn make_queue<T: Token>(
    transport: &mut impl Transport,
    dma: &dyn DmaSpace,
    number: u16,
    most: u16,
    features: u64,
) -> Result<Queue<T>, VirtioError> {
    let limit = transport.queue_limit(number).min(MAX_ENTRIES);
    let legacy = transport.is_legacy();
    // Entries are a power of two; a limit of a packed ring need not be (§2.8.10.1).
    let most = if legacy { limit } else { limit.min(most.max(2)) };
    let entries: u16 = most.checked_ilog2().map_or(0, |log2| 1 << log2);
    if entries < 2 || legacy && entries != limit {
        return Err(VirtioError::NoQueue(number));
    }
    Ok(Queue::new(dma, entries, Features::from_bits_retain(features))?)
}

/// Makes sure that a device which was reset has as much room as it had for a queue.
pub(crate) fn check_queue<T: Token>(
    transport: &mut impl Transport,
    number: u16,
    queue: &Queue<T>,
) -> Result<(), VirtioError> {
    match transport.queue_limit(number) < queue.areas().entries {
        true => Err(VirtioError::NoQueue(number)),
        false => Ok(()),
    }
}
