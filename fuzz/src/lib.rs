//! What the fuzz targets do with their input. Each panics if something is wrong.
#![forbid(unsafe_code)]

mod hba;
mod input;
mod ledger;
#[allow(dead_code, reason = "the parts that are for tests only")]
#[path = "../../crates/class/block/tests/support/memory.rs"]
mod memory;
mod messages;
#[allow(dead_code, reason = "the parts that are for tests only")]
#[path = "../../crates/class/net/tests/support/mirror.rs"]
mod mirror;
mod net;
mod partitions;
mod space;
mod vhost;
mod virtio;

pub use hba::hba;
pub use messages::messages;
pub use net::net;
pub use partitions::partitions;
pub use vhost::vhost;
pub use virtio::virtio;
