//! What front ends say ("Front-end message types"), in any order.

use crate::call::{Call, is_event, signal};
use crate::client::Client;
use crate::device::Device;
use crate::error::Violation;
use crate::inflight::{self, Inflight};
use crate::memory::{MAX_REGIONS, Memory, Region};
use crate::queue::Vring;
use crate::ring::MAX_ENTRIES;
use crate::socket::Message;
use outboard_virtio::spec::features::Features;
use outboard_virtio::spec::vhost_user::request::*;
use outboard_virtio::spec::vhost_user::{
    ConfigPart, Header, INFLIGHT_BYTES, InflightRegion, MAX_CONFIG_BYTES, MAX_TABLE_REGIONS,
    MemoryRegion, PROTOCOL_FEATURES, ProtocolFeatures, REGIONS_AT, VRING_INDEX_MASK, VRING_NO_FD,
    VringAddress, VringState,
};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use zerocopy::{FromBytes, IntoBytes};

/// How a message is answered.
enum Answer {
    /// With whether it was carried out, if its sender wants to know.
    Done(bool),
    /// With a number.
    Number(u64),
    /// With bytes.
    Bytes(Vec<u8>),
    /// With bytes, and a descriptor.
    Enclosed(Vec<u8>, OwnedFd),
    /// Later.
    Later,
}

const DONE: Result<Answer, Violation> = Ok(Answer::Done(true));

/// A message's bytes and descriptors, taken out as its kind has them.
struct Content {
    request: u32,
    body: Vec<u8>,
    descriptors: Vec<OwnedFd>,
}

impl Content {
    /// The bytes, which are all there are.
    fn whole<T: FromBytes>(&self) -> Result<T, Violation> {
        let length = Violation::Length(self.request, self.body.len());
        T::read_from_bytes(&self.body).map_err(|_| length)
    }

    /// A structure at the start of the bytes, and those behind it.
    fn first<T: FromBytes>(&self) -> Result<(T, &[u8]), Violation> {
        let length = Violation::Length(self.request, self.body.len());
        T::read_from_prefix(&self.body).map_err(|_| length)
    }

    fn number(&self) -> Result<u64, Violation> {
        self.whole().map(u64::from_le_bytes)
    }

    const fn value(&self) -> Violation {
        Violation::Value(self.request)
    }

    /// The one descriptor that comes with it.
    fn descriptor(&mut self) -> Result<OwnedFd, Violation> {
        let wrong = Violation::Descriptors(self.request, self.descriptors.len());
        let one = self.descriptors.pop().ok_or(wrong)?;
        if self.descriptors.is_empty() { Ok(one) } else { Err(wrong) }
    }
}

impl Client {
    /// Carries a message out, and answers it.
    pub(crate) fn answer(
        &mut self,
        message: Message,
        device: &mut dyn Device,
    ) -> Result<(), Violation> {
        let Message { request, flags, body, descriptors } = message;
        let acknowledged =
            self.protocol.contains(ProtocolFeatures::REPLY_ACK) && flags & Header::NEED_REPLY != 0;
        let mut content = Content { request, body, descriptors };
        let answer = self.carry_out(&mut content, device)?;
        if !content.descriptors.is_empty() {
            return Err(Violation::Descriptors(request, content.descriptors.len()));
        }
        match answer {
            Answer::Done(good) if acknowledged => {
                self.socket.send(request, &u64::from(!good).to_le_bytes(), None)
            }
            Answer::Done(_) | Answer::Later => Ok(()),
            Answer::Number(number) => self.socket.send(request, &number.to_le_bytes(), None),
            Answer::Bytes(bytes) => self.socket.send(request, &bytes, None),
            Answer::Enclosed(bytes, descriptor) => {
                self.socket.send(request, &bytes, Some(descriptor))
            }
        }
    }

    fn carry_out(
        &mut self,
        content: &mut Content,
        device: &mut dyn Device,
    ) -> Result<Answer, Violation> {
        match content.request {
            GET_FEATURES => Ok(Answer::Number(self.offer.features)),
            SET_FEATURES => self.set_features(content.number()?),
            GET_PROTOCOL_FEATURES => Ok(Answer::Number(self.offer.protocol.bits())),
            SET_PROTOCOL_FEATURES => self.set_protocol_features(content.number()?),
            SET_OWNER | RESET_OWNER => DONE,
            GET_QUEUE_NUM => Ok(Answer::Number(self.offer.told_queues as u64)),
            GET_MAX_MEM_SLOTS => Ok(Answer::Number(MAX_REGIONS as u64)),
            SET_MEM_TABLE => self.set_memory(content),
            ADD_MEM_REG => self.add_memory(content),
            REM_MEM_REG => self.remove_memory(content),
            SET_VRING_NUM => {
                let (vring, number) = self.stopped(content)?;
                let entries = u16::try_from(number).ok();
                let entries = entries.filter(|entries| (1..=MAX_ENTRIES).contains(entries));
                vring.entries = entries.ok_or(content.value())?;
                DONE
            }
            SET_VRING_BASE => {
                let (vring, number) = self.stopped(content)?;
                vring.base = number;
                DONE
            }
            SET_VRING_ADDR => self.set_address(content),
            SET_VRING_ENABLE => {
                let state: VringState = content.whole()?;
                let queue = self.queue(state.index.get().into())?;
                self.vrings[queue].enabled = state.number.get() != 0;
                DONE
            }
            SET_VRING_KICK => self.set_kick_descriptor(content),
            SET_VRING_CALL => {
                let (queue, call) = self.event(content)?;
                let vring = &mut self.vrings[queue];
                vring.call = call;
                // Whoever was told by the former one need not have noticed.
                vring.owed_call = vring.ring.is_some();
                DONE
            }
            SET_VRING_ERR => {
                let (queue, error) = self.event(content)?;
                self.vrings[queue].error = error;
                DONE
            }
            GET_VRING_BASE => {
                let state: VringState = content.whole()?;
                self.stopping = Some(self.queue(state.index.get().into())?);
                self.answer_stop().map(|()| Answer::Later)
            }
            NET_SET_MTU => Ok(Answer::Done(device.set_mtu(content.number()?))),
            SET_BACKEND_REQ_FD => {
                self.back = Some(content.descriptor()?);
                DONE
            }
            GET_CONFIG | SET_CONFIG if !self.offer.protocol.contains(ProtocolFeatures::CONFIG) => {
                Ok(Answer::Done(false))
            }
            GET_CONFIG => get_config(content, device),
            SET_CONFIG => set_config(content, device),
            GET_INFLIGHT_FD => {
                let (made, file) = inflight::make(&content.first()?.0)?;
                let mut bytes = vec![0; content.body.len().max(INFLIGHT_BYTES)];
                bytes[..INFLIGHT_BYTES].copy_from_slice(made.as_bytes());
                Ok(Answer::Enclosed(bytes, file))
            }
            SET_INFLIGHT_FD => self.set_inflight(content),
            _ => Ok(Answer::Done(false)),
        }
    }

    /// Where a ring is.
    fn set_address(&mut self, content: &mut Content) -> Result<Answer, Violation> {
        let address: VringAddress = content.whole()?;
        let queue = self.queue(address.index.get().into())?;
        let vring = &mut self.vrings[queue];
        if vring.ring.is_some() {
            return Err(Violation::Order(SET_VRING_ADDR));
        }
        // Nothing is logged: that was not offered.
        if address.flags.get() != 0 {
            return Err(content.value());
        }
        vring.address = Some(address);
        DONE
    }

    /// What a predecessor left undone.
    fn set_inflight(&mut self, content: &mut Content) -> Result<Answer, Violation> {
        let what: InflightRegion = content.first()?.0;
        let file = content.descriptor()?;
        if self.is_running() {
            return Err(Violation::Order(SET_INFLIGHT_FD));
        }
        self.inflight = Some(Inflight::adopt(&what, file)?);
        DONE
    }

    fn is_running(&self) -> bool {
        self.vrings.iter().any(|vring| vring.ring.is_some())
    }

    /// The ring that a front end names.
    fn queue(&mut self, index: u64) -> Result<usize, Violation> {
        let queue = usize::try_from(index).ok().filter(|queue| *queue < self.vrings.len());
        let queue = queue.ok_or(Violation::NoRing(index))?;
        self.named = self.named.max(queue + 1);
        Ok(queue)
    }

    /// The ring that a number is for, which must not run.
    fn stopped(&mut self, content: &Content) -> Result<(&mut Vring, u32), Violation> {
        let state: VringState = content.whole()?;
        let queue = self.queue(state.index.get().into())?;
        let vring = &mut self.vrings[queue];
        if vring.ring.is_some() {
            return Err(Violation::Order(content.request));
        }
        Ok((vring, state.number.get()))
    }

    fn set_features(&mut self, features: u64) -> Result<Answer, Violation> {
        let unknown = features & !self.offer.features;
        if unknown != 0 {
            return Err(Violation::Features(unknown));
        }
        if self.is_running() && features != self.features {
            return Err(Violation::Order(SET_FEATURES));
        }
        self.features = features;
        if features & PROTOCOL_FEATURES == 0 {
            // Who cannot enable rings has them enabled ("Ring states").
            self.vrings.iter_mut().for_each(|vring| vring.enabled = true);
        }
        DONE
    }

    fn set_protocol_features(&mut self, features: u64) -> Result<Answer, Violation> {
        let unknown = features & !self.offer.protocol.bits();
        if unknown != 0 {
            return Err(Violation::Features(unknown));
        }
        self.protocol = ProtocolFeatures::from_bits_retain(features);
        DONE
    }

    fn ring_features(&self) -> Features {
        Features::from_bits_retain(self.features)
    }

    fn set_memory(&mut self, content: &mut Content) -> Result<Answer, Violation> {
        let files = std::mem::take(&mut content.descriptors);
        let (header, regions): ([u8; REGIONS_AT], _) = content.first()?;
        let count = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let length = Violation::Length(content.request, content.body.len());
        if count > MAX_TABLE_REGIONS || regions.len() != count * size_of::<MemoryRegion>() {
            return Err(length);
        }
        if files.len() != count {
            return Err(Violation::Descriptors(content.request, files.len()));
        }
        let mut memory = Memory::default();
        let regions = regions.chunks_exact(size_of::<MemoryRegion>());
        for (region, file) in regions.zip(files) {
            let region = MemoryRegion::read_from_bytes(region).map_err(|_| length)?;
            memory.add(Region::map(file, &region, &self.reach)?)?;
        }
        self.use_memory(memory)
    }

    fn region(content: &Content) -> Result<MemoryRegion, Violation> {
        let (_, region): ([u8; REGIONS_AT], _) = content.first()?;
        let length = Violation::Length(content.request, content.body.len());
        MemoryRegion::read_from_bytes(region).map_err(|_| length)
    }

    fn add_memory(&mut self, content: &mut Content) -> Result<Answer, Violation> {
        let region = Self::region(content)?;
        let mut memory = (*self.memory).clone();
        memory.add(Region::map(content.descriptor()?, &region, &self.reach)?)?;
        self.use_memory(memory)
    }

    fn remove_memory(&mut self, content: &mut Content) -> Result<Answer, Violation> {
        let region = Self::region(content)?;
        // Some send the file once more, and some do not.
        content.descriptors.clear();
        let mut memory = (*self.memory).clone();
        if !memory.remove(&region) {
            return Err(content.value());
        }
        self.use_memory(memory)
    }

    /// Rings, and requests from now on, use this memory. Those that are under way keep theirs.
    fn use_memory(&mut self, memory: Memory) -> Result<Answer, Violation> {
        let features = self.ring_features();
        for (number, vring) in self.vrings.iter_mut().enumerate() {
            vring.relocate(number, &memory, features)?;
        }
        self.memory = Rc::new(memory);
        DONE
    }

    /// The ring that a descriptor is for, and the descriptor, if one came.
    fn vring_descriptor(
        &mut self,
        content: &mut Content,
    ) -> Result<(usize, Option<OwnedFd>), Violation> {
        let number = content.number()?;
        let queue = self.queue(number & VRING_INDEX_MASK)?;
        let none = number & VRING_NO_FD != 0;
        Ok((queue, if none { None } else { Some(content.descriptor()?) }))
    }

    /// Likewise, of an `eventfd` that is written.
    fn event(&mut self, content: &mut Content) -> Result<(usize, Option<Arc<Call>>), Violation> {
        let (queue, event) = self.vring_descriptor(content)?;
        Ok((queue, event.map(|event| Call::new(event, queue)).transpose()?))
    }

    /// The ring runs from here on ("Ring states").
    fn set_kick_descriptor(&mut self, content: &mut Content) -> Result<Answer, Violation> {
        let (queue, kick) = self.vring_descriptor(content)?;
        // Looking at rings that nobody tells of would take a processor.
        let kick = kick.ok_or(content.value())?;
        if !is_event(&kick) || !self.set_kick(queue, Some(kick)) {
            return Err(Violation::NotAnEvent(queue as u64));
        }
        let features = self.ring_features();
        let vring = &mut self.vrings[queue];
        if vring.ring.is_none() {
            vring.start(queue, &self.memory, features, self.inflight.as_ref())?;
        }
        DONE
    }

    /// Stops a ring, if one is to be stopped and nothing of it is under way, and says where it
    /// stands.
    pub(crate) fn answer_stop(&mut self) -> Result<(), Violation> {
        let Some(queue) = self.stopping.filter(|queue| self.vrings[*queue].under_way == 0) else {
            return Ok(());
        };
        self.stopping = None;
        let vring = &mut self.vrings[queue];
        vring.publish();
        if let Some(ring) = vring.ring.take() {
            vring.base = ring.base();
            // Who polls for the end of requests has seen it, and who waits is told once more.
            signal(vring.call.as_ref());
        }
        let state = VringState { index: (queue as u32).into(), number: vring.base.into() };
        self.set_kick(queue, None);
        self.socket.send(GET_VRING_BASE, state.as_bytes(), None)
    }
}

fn get_config(content: &Content, device: &dyn Device) -> Result<Answer, Violation> {
    let (part, payload): (ConfigPart, _) = content.first()?;
    let (offset, bytes) = (part.offset.get() as usize, part.bytes.get() as usize);
    let end = offset.checked_add(bytes).filter(|end| *end <= MAX_CONFIG_BYTES);
    let Some(end) = end.filter(|_| payload.len() == bytes) else {
        return Err(content.value());
    };
    let mut answer = part.as_bytes().to_vec();
    answer.extend_from_slice(&device.config()[offset..end]);
    Ok(Answer::Bytes(answer))
}

fn set_config(content: &Content, device: &mut dyn Device) -> Result<Answer, Violation> {
    let (part, payload): (ConfigPart, _) = content.first()?;
    if payload.len() != part.bytes.get() as usize {
        return Err(content.value());
    }
    Ok(Answer::Done(device.set_config(part.offset.get() as usize, payload)))
}
