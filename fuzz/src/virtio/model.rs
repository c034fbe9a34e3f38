//! The fuzzed device as the driver sees it: a transport.

use super::rings::{Piece, Ring};
use crate::input::Input;
use crate::space::Space;
use outboard_hw::dma::{DeviceView, DmaSpace};
use outboard_net::Offloads;
use outboard_virtio::VirtioError;
use outboard_virtio::queue::Areas;
use outboard_virtio::spec::blk::{
    BLK_SIZE, BlkFeatures, CAPACITY, MAX_DISCARD_SECTORS, MAX_SECURE_ERASE_SECTORS,
    MAX_WRITE_ZEROES_SECTORS, NUM_QUEUES, PHYSICAL_BLOCK_EXP, SEG_MAX, SIZE_MAX, WRITEBACK,
};
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::net::{MAC, MAX_PAIRS, MTU, NetFeatures, STATUS};
use outboard_virtio::spec::status::Status;
use outboard_virtio::transport::{Cause, Transport};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Register accesses of one call that are too many.
const MAX_ACCESSES: u32 = 5000;
const CONFIG_BYTES: usize = 64;
const QUEUES: usize = 6;
/// A queue that is as long as the device says has no more than two to this power, unless a step says so:
/// longer ones cost time, and show nothing that these do not.
const MAX_LOG_ENTRIES: u8 = 6;

/// A handle to the device.
#[derive(Clone)]
pub(crate) struct Handle {
    pub(crate) model: Arc<Mutex<Model>>,
    pub(crate) space: Arc<Space>,
}

impl Handle {
    pub(crate) fn model(&self) -> MutexGuard<'_, Model> {
        self.model.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model, for an access to a register.
    fn access(&self) -> MutexGuard<'_, Model> {
        let mut model = self.model();
        model.accesses += 1;
        assert!(model.accesses < MAX_ACCESSES, "a call without an end");
        model
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a device with status {:#x}", self.model().status)
    }
}

/// The device.
pub(crate) struct Model {
    view: DeviceView,
    features: u64,
    accepted: u64,
    status: u8,
    config: [u8; CONFIG_BYTES],
    generation: u32,
    /// The generation changes with each look.
    restless: bool,
    entries: u16,
    rings: [Option<Ring>; QUEUES],
    /// Room for a request's pieces.
    pieces: Vec<Piece>,
    pub(crate) legacy: bool,
    pub(crate) one_vector: bool,
    pub(crate) removed: bool,
    /// For so many looks it is not there; then it is back, or gone for good.
    away: u8,
    returns: bool,
    /// Once it is back it can go on with its queues.
    resumes: bool,
    /// It was away, and the driver has not turned to it since.
    forgot: bool,
    /// So often the status reads as it was after a reset was asked for; 255 for ever.
    slow_reset: u8,
    reset_asked: bool,
    /// It has written nothing that it should not.
    honest: bool,
    /// It refuses features, vectors or queues.
    refuses: u8,
    pub(crate) accesses: u32,
}

impl Model {
    pub(crate) const fn new(view: DeviceView) -> Self {
        Self {
            view,
            features: 0,
            accepted: 0,
            status: 0,
            config: [0; CONFIG_BYTES],
            generation: 0,
            restless: false,
            entries: 0,
            rings: [const { None }; QUEUES],
            pieces: Vec::new(),
            legacy: false,
            one_vector: false,
            removed: false,
            away: 0,
            returns: false,
            resumes: false,
            forgot: false,
            slow_reset: 0,
            reset_asked: false,
            honest: true,
            refuses: 0,
            accesses: 0,
        }
    }

    /// Another device, as the bytes say.
    pub(crate) fn reset(&mut self, rings: u8, disk: u8, sizes: u8, segments: u8, capacity: u8) {
        let has = |byte: u8, bit: u32| byte >> bit & 1 == 1;
        let mut features = Features::VERSION_1;
        features.set(Features::PACKED, has(rings, 0));
        features.set(Features::INDIRECT, !has(rings, 1));
        features.set(Features::EVENT_INDEX, has(rings, 2));
        features.set(Features::IN_ORDER, has(capacity, 0));
        features.set(Features::RING_RESET, has(capacity, 1));
        let mut disks = BlkFeatures::empty();
        disks.set(BlkFeatures::MULTI_QUEUE, has(rings, 3));
        disks.set(BlkFeatures::FLUSH, !has(disk, 0));
        disks.set(BlkFeatures::CONFIG_WCE, has(disk, 1));
        disks.set(BlkFeatures::DISCARD, has(disk, 2));
        disks.set(BlkFeatures::WRITE_ZEROES | BlkFeatures::SECURE_ERASE, has(disk, 2));
        disks.set(BlkFeatures::LIFETIME, has(capacity, 2));
        disks.set(BlkFeatures::READ_ONLY, has(disk, 3));
        disks.set(BlkFeatures::BLK_SIZE, has(disk, 4));
        disks.set(BlkFeatures::TOPOLOGY, has(disk, 5));
        disks.set(BlkFeatures::SEG_MAX, !has(disk, 6));
        disks.set(BlkFeatures::SIZE_MAX, has(disk, 7));
        let (view, config) = (self.view.clone(), [0; CONFIG_BYTES]);
        *self = Self { config, ..Self::new(view) };
        self.features = features.bits() | disks.bits();
        self.entries = 1 << (rings >> 4).min(MAX_LOG_ENTRIES);
        self.set(CAPACITY, &u64::from(capacity).wrapping_mul(8).to_le_bytes());
        self.set(SIZE_MAX, &(512u32 << (sizes & 7)).to_le_bytes());
        self.set(SEG_MAX, &u32::from(segments & 0xf).to_le_bytes());
        self.set(BLK_SIZE, &(256u32 << (sizes >> 3 & 7)).to_le_bytes());
        self.set(PHYSICAL_BLOCK_EXP, &[sizes >> 6]);
        self.set(WRITEBACK, &[segments >> 7]);
        self.set(NUM_QUEUES, &u16::from(segments >> 4 & 7).to_le_bytes());
        for most in [MAX_DISCARD_SECTORS, MAX_WRITE_ZEROES_SECTORS, MAX_SECURE_ERASE_SECTORS] {
            self.set(most, &64u32.to_le_bytes());
        }
    }

    /// Another network card, as the bytes say.
    pub(crate) fn reset_card(&mut self, rings: u8, card: u8, more: u8) {
        let has = |byte: u8, bit: u32| byte >> bit & 1 == 1;
        let mut features = Features::VERSION_1;
        features.set(Features::PACKED, has(rings, 0));
        features.set(Features::INDIRECT, !has(rings, 1));
        features.set(Features::EVENT_INDEX, has(rings, 2));
        features.set(Features::IN_ORDER, has(rings, 3));
        let mut cards = NetFeatures::empty();
        let work = Offloads::all().difference(Offloads::VLAN);
        let none = Offloads::empty();
        let sent = if has(card, 0) { work } else { none };
        let received = if has(card, 1) { work } else { none };
        cards |= outboard_virtio::net::features::offers(sent, received);
        cards.set(NetFeatures::MRG_RXBUF, has(card, 2));
        let modes = NetFeatures::CTRL_RX | NetFeatures::CTRL_RX_EXTRA | NetFeatures::CTRL_VLAN;
        cards.set(NetFeatures::CTRL_VQ | NetFeatures::CTRL_MAC_ADDR, has(card, 3));
        cards.set(modes, has(card, 4));
        cards.set(NetFeatures::MQ, has(card, 5));
        cards.set(NetFeatures::STATUS | NetFeatures::GUEST_ANNOUNCE, has(card, 6));
        cards.set(NetFeatures::MTU, has(card, 7));
        cards.set(NetFeatures::MAC, has(more, 0));
        cards.set(NetFeatures::SPEED_DUPLEX, has(more, 1));
        let (view, config) = (self.view.clone(), [0; CONFIG_BYTES]);
        *self = Self { config, ..Self::new(view) };
        self.features = features.bits() | cards.bits();
        self.entries = 1 << (rings >> 4).min(MAX_LOG_ENTRIES);
        self.set(MAC, &[2, 0, 0, 0, 0, more]);
        self.set(STATUS, &[more >> 2 & 3, 0]);
        self.set(MAX_PAIRS, &[1 + (more >> 4 & 1), 0]);
        self.set(MTU, &(64u16 << (more >> 5)).to_le_bytes());
    }

    fn set(&mut self, at: usize, bytes: &[u8]) {
        self.config[at..][..bytes.len()].copy_from_slice(bytes);
    }

    fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        let bytes = self.config.get(at..at + N).filter(|_| !self.removed);
        bytes.map_or([u8::MAX; N], |bytes| bytes.try_into().expect("as many bytes"))
    }

    /// Behaves from now on.
    pub(crate) const fn heal(&mut self) {
        (self.restless, self.slow_reset, self.refuses, self.away) = (false, 0, 0, 0);
    }

    pub(crate) const fn was_told_to_reset(&self) -> bool {
        self.reset_asked
    }

    /// Does all that it has, with this status; how many vectors to fire.
    pub(crate) fn serve(&mut self, status: u8) -> u16 {
        if !self.removed {
            let (view, honest, pieces) = (&self.view, self.honest, &mut self.pieces);
            for ring in self.rings.iter_mut().flatten() {
                ring.serve(view, status, honest, pieces);
            }
        }
        QUEUES as u16 + 1
    }

    /// The device does something that it should not.
    pub(crate) fn step(&mut self, kind: u8, small: u8, input: &mut Input<'_>) {
        match kind {
            // Anything in a ring: descriptors, what the device writes, or behind them.
            11 | 12 => {
                self.honest = false;
                let ring = self.rings[usize::from(small & 3)].as_ref();
                let Some(areas) = ring.map(Ring::areas) else { return };
                let area = if small & 4 == 0 { areas.device } else { areas.descriptors };
                let at = area.bits() + u64::from(input.byte());
                let count = if kind == 11 { 1 + usize::from(small >> 3) } else { 8 };
                // What is not allocated any more is not the device's either.
                let _ = self.view.write(at, input.bytes(count));
            }
            13 => {
                let at = usize::from(input.byte()) % CONFIG_BYTES;
                self.config[at] = input.byte();
                self.generation += 1;
            }
            14 => match small {
                0 => self.status |= Status::NEEDS_RESET.bits(),
                1 => self.removed = !self.removed,
                2 => self.restless = !self.restless,
                3 => self.slow_reset = input.byte(),
                4 => self.refuses = input.byte(),
                5 => self.features ^= 1 << (input.byte() & 63),
                6 => self.entries = input.half(),
                7 => self.go_away(input.byte()),
                _ => self.status = input.byte(),
            },
            _ => {
                // One ring again from its beginning, or one request less.
                self.honest = false;
                if let Some(ring) = &mut self.rings[usize::from(small & 3)] {
                    ring.stumble(small >> 2);
                }
            }
        }
    }
}

impl Model {
    /// Its back end goes away, as those of vhost-user do.
    const fn go_away(&mut self, how: u8) {
        (self.resumes, self.returns, self.away) = (how & 1 == 0, how & 2 == 0, 1 + (how >> 2));
        self.forgot = true;
        self.rings = [const { None }; QUEUES];
        self.status = Status::NEEDS_RESET.bits();
    }
}

impl Transport for Handle {
    fn dma(&self) -> Arc<dyn DmaSpace> {
        self.space.clone()
    }

    fn is_legacy(&self) -> bool {
        self.model().legacy
    }

    fn is_away(&mut self) -> bool {
        let mut model = self.access();
        let was_away = model.away > 0;
        model.away = model.away.saturating_sub(1);
        model.removed |= was_away && model.away == 0 && !model.returns;
        was_away
    }

    fn can_resume(&self) -> bool {
        self.access().resumes
    }

    fn resume(&mut self, queues: &[(Areas, u32)]) {
        let mut model = self.access();
        let packed = model.accepted & Features::PACKED.bits() != 0;
        model.rings = [const { None }; QUEUES];
        for (ring, (areas, at)) in model.rings.iter_mut().zip(queues) {
            *ring = Some(Ring::new(*areas, packed).resumed(*at));
        }
    }

    fn offered_features(&mut self) -> u64 {
        self.access().features
    }

    fn accept_features(&mut self, features: u64) {
        let mut model = self.access();
        assert_eq!(features & !model.features, 0, "features that were not offered");
        model.accepted = features;
    }

    fn status(&self) -> Status {
        let mut model = self.access();
        if model.removed {
            return Status::from_bits_retain(u8::MAX);
        }
        if model.reset_asked && model.slow_reset > 0 {
            model.slow_reset = model.slow_reset.saturating_sub(u8::from(model.slow_reset < 255));
        } else if model.reset_asked {
            model.status = 0;
        }
        if model.reset_asked && model.status == 0 {
            // Only now, whoever says so, it lets go of memory.
            model.rings = [const { None }; QUEUES];
        }
        Status::from_bits_retain(model.status)
    }

    fn set_status(&mut self, status: Status) {
        let mut model = self.access();
        model.reset_asked = status.is_empty();
        if status.is_empty() {
            if model.slow_reset == 0 {
                model.rings = [const { None }; QUEUES];
            }
        } else {
            model.forgot = false;
            let refused = model.refuses & 1 != 0;
            model.status = status.bits();
            if refused {
                model.status &= !Status::FEATURES_OK.bits();
            }
        }
    }

    fn queue_limit(&mut self, _: u16) -> u16 {
        self.access().entries
    }

    fn enable_interrupts(&mut self, _: u16) -> Result<(), VirtioError> {
        Ok(())
    }

    fn start(&mut self) -> Result<(), VirtioError> {
        if self.access().refuses & 2 == 0 { Ok(()) } else { Err(VirtioError::NoVector) }
    }

    fn cut_off(&mut self) {
        self.access().rings = [const { None }; QUEUES];
    }

    fn enable_queue(&mut self, queue: u16, areas: Areas) -> Result<(), VirtioError> {
        let mut model = self.access();
        if model.refuses & 4 != 0 {
            return Err(VirtioError::NoQueue(queue));
        }
        let packed = model.accepted & Features::PACKED.bits() != 0;
        let Some(ring) = model.rings.get_mut(usize::from(queue)) else {
            return Err(VirtioError::NoQueue(queue));
        };
        *ring = Some(Ring::new(areas, packed));
        Ok(())
    }

    fn notify(&mut self, queue: u16, _: u16) {
        let model = self.access();
        let enabled = model.rings[usize::from(queue)].is_some();
        assert!(enabled || model.reset_asked || model.forgot, "queue {queue} is not enabled");
    }

    fn reset_queue(&mut self, queue: u16) {
        let mut model = self.access();
        if model.slow_reset == 0 {
            model.rings[usize::from(queue)] = None;
        }
    }

    fn is_queue_reset(&mut self, queue: u16) -> bool {
        self.access().rings[usize::from(queue)].is_none()
    }

    fn cause(&mut self, vector: u16) -> Cause {
        let model = self.access();
        let either = model.one_vector;
        Cause { queues: either || vector > 0, config: either || vector == 0 }
    }

    fn config_generation(&self) -> u32 {
        let mut model = self.access();
        model.generation += u32::from(model.restless);
        model.generation
    }

    fn config_u8(&self, offset: usize) -> u8 {
        u8::from_le_bytes(self.access().get(offset))
    }

    fn config_u16(&self, offset: usize) -> u16 {
        u16::from_le_bytes(self.access().get(offset))
    }

    fn config_u32(&self, offset: usize) -> u32 {
        u32::from_le_bytes(self.access().get(offset))
    }

    fn set_config_u8(&mut self, offset: usize, value: u8) {
        self.access().config[offset] = value;
    }
}
