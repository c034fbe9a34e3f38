//! Back end and front end in one thread, with a disk, or a card, made of memory.

mod calls;
mod death;
mod hostile;
mod lent;
mod memory;
mod net;
mod reach;
mod rig;
mod service;
