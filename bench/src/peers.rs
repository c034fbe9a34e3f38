//! The devices' sides that the drivers' tests have: what a driver that is measured talks to.
#![allow(unreachable_pub, missing_debug_implementations, dead_code)]

#[path = "../../crates/drivers/virtio/tests/support/card.rs"]
pub(crate) mod card;
#[path = "../../crates/drivers/virtio/tests/support/model.rs"]
pub(crate) mod model;
#[path = "../../crates/drivers/virtio/tests/support/peer.rs"]
mod peer;
