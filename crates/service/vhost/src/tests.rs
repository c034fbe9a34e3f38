//! Back end and front end in one thread, with a disk made of memory.

mod death;
mod hostile;
mod rig;
mod service;
