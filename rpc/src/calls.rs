//! The table of calls in flight on one channel. Pure: no locks, no clock, no IO.
//!
//! A request id is a slot's index and the slot's generation, so a late answer to a call that was given up never
//! reaches a later one. Slots are reused; a call allocates nothing once the table has grown.
//!
//! ```text
//!            begin                 complete / expire / fail
//!   Free -----------> Waiting ------------------------------> Done
//!    ^                   | release (caller gave up)             | poll, release
//!    +-------------------+--------------------------------------+
//! ```

use std::task::Waker;
use std::time::Instant;

use pegasus_wire::Frame;
use pegasus_wire::limits::REQUESTS_PER_STREAM_MAX;

use crate::error::CallError;

/// All calls of one channel.
#[derive(Debug, Default)]
pub(crate) struct Calls {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Debug)]
struct Slot {
    /// Raised each time the slot is taken; the upper half of the request id.
    generation: u32,
    state: SlotState,
}

#[derive(Debug)]
enum SlotState {
    Free,
    Waiting {
        deadline: Instant,
        /// Where the request begins in the stream; `None` while it is being appended.
        position: Option<u64>,
        caller: Option<Waker>,
    },
    Done(Result<Frame, CallError>),
}

impl Calls {
    /// Takes a slot and returns its request id; `None` if `REQUESTS_PER_STREAM_MAX` calls are in flight.
    pub(crate) fn begin(&mut self, deadline: Instant) -> Option<u64> {
        let index = match self.free.pop() {
            Some(index) => index,
            None if self.slots.len() < REQUESTS_PER_STREAM_MAX => {
                self.slots.push(Slot { generation: 0, state: SlotState::Free });
                (self.slots.len() - 1) as u32
            }
            None => return None,
        };
        let slot = &mut self.slots[index as usize];
        // Never zero, so that no request id is zero.
        slot.generation = slot.generation.wrapping_add(1).max(1);
        slot.state = SlotState::Waiting { deadline, position: None, caller: None };
        Some(u64::from(slot.generation) << 32 | u64::from(index))
    }

    /// Calls that hold a slot.
    pub(crate) fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Notes where the request begins in the stream.
    pub(crate) fn sent(&mut self, id: u64, at: u64) {
        if let Some(Slot { state: SlotState::Waiting { position, .. }, .. }) = self.slot(id) {
            *position = Some(at);
        }
    }

    /// An answer arrived. Returns whom to wake, or `None` if nobody waits for it any more.
    pub(crate) fn complete(&mut self, frame: Frame) -> Option<Waker> {
        let slot = self.slot(frame.header.request_id)?;
        match &mut slot.state {
            SlotState::Waiting { caller, .. } => {
                let caller = caller.take();
                slot.state = SlotState::Done(Ok(frame));
                caller
            }
            SlotState::Free | SlotState::Done(_) => None,
        }
    }

    /// The result of the call, or `None` after noting whom to wake.
    pub(crate) fn poll(&mut self, id: u64, waker: &Waker) -> Option<Result<Frame, CallError>> {
        let slot = self.slot(id).expect("a call holds its slot until it is released");
        match &mut slot.state {
            SlotState::Waiting { caller, .. } => {
                match caller {
                    Some(known) => known.clone_from(waker),
                    None => *caller = Some(waker.clone()),
                }
                None
            }
            SlotState::Done(_) => match std::mem::replace(&mut slot.state, SlotState::Free) {
                SlotState::Done(result) => Some(result),
                _ => unreachable!("matched above"),
            },
            SlotState::Free => unreachable!("a finished call is not polled again"),
        }
    }

    /// Gives the slot back; an answer that still comes is dropped.
    pub(crate) fn release(&mut self, id: u64) {
        if let Some(slot) = self.slot(id) {
            slot.state = SlotState::Free;
            // The generation rises now, so that the id is unknown from here on.
            slot.generation = slot.generation.wrapping_add(1).max(1);
            self.free.push(id as u32);
        }
    }

    /// Ends calls whose deadline has passed. Adds whom to wake; returns the next deadline.
    pub(crate) fn expire(&mut self, now: Instant, wake: &mut Vec<Waker>) -> Option<Instant> {
        let mut next = None;
        for slot in &mut self.slots {
            let SlotState::Waiting { deadline, caller, .. } = &mut slot.state else { continue };
            if *deadline > now {
                next = Some(next.map_or(*deadline, |earlier: Instant| earlier.min(*deadline)));
                continue;
            }
            wake.extend(caller.take());
            // It is in the outbox at least, and what is there may still leave.
            slot.state = SlotState::Done(Err(CallError::Deadline { sent: true }));
        }
        next
    }

    /// Ends all calls: nothing from stream position `taken` on was sent. Adds whom to wake.
    pub(crate) fn fail(&mut self, reason: &str, taken: u64, wake: &mut Vec<Waker>) {
        for slot in &mut self.slots {
            let SlotState::Waiting { position, caller, .. } = &mut slot.state else { continue };
            wake.extend(caller.take());
            let reason = reason.to_owned();
            let error = match position {
                Some(position) if *position >= taken => CallError::NotSent { reason },
                _ => CallError::Lost { reason },
            };
            slot.state = SlotState::Done(Err(error));
        }
    }

    fn slot(&mut self, id: u64) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id as u32 as usize)?;
        (slot.generation == (id >> 32) as u32).then_some(slot)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use pegasus_wire::{FrameHeader, MessageKind, Status};

    use super::*;

    fn answer(request_id: u64) -> Frame {
        let header = FrameHeader::answer(MessageKind::GET, request_id, Status::Ok);
        Frame { header, body: Bytes::new(), attachment: Bytes::new() }
    }

    #[test]
    fn an_answer_reaches_its_call_once() {
        let mut calls = Calls::default();
        let now = Instant::now();
        let first = calls.begin(now).unwrap();
        let second = calls.begin(now).unwrap();
        assert_ne!(first, second);
        assert!(calls.poll(first, Waker::noop()).is_none());
        assert!(calls.complete(answer(first)).is_some());
        assert_eq!(calls.poll(first, Waker::noop()).unwrap().unwrap().header.request_id, first);
        calls.release(first);
        assert_eq!(calls.in_flight(), 1);
        assert!(calls.complete(answer(first)).is_none());
        assert!(calls.poll(second, Waker::noop()).is_none());
    }

    #[test]
    fn a_late_answer_does_not_reach_the_next_call_in_the_slot() {
        let mut calls = Calls::default();
        let now = Instant::now();
        let first = calls.begin(now).unwrap();
        calls.release(first);
        let second = calls.begin(now).unwrap();
        assert_eq!(first as u32, second as u32, "the slot is reused");
        assert!(calls.complete(answer(first)).is_none());
        assert!(calls.poll(second, Waker::noop()).is_none());
        for nonsense in [0, u64::MAX, u64::from(u32::MAX), 1 << 32 | 77] {
            assert!(calls.complete(answer(nonsense)).is_none());
        }
    }

    #[test]
    fn the_table_is_bounded() {
        let mut calls = Calls::default();
        let now = Instant::now();
        let ids: Vec<_> = (0..REQUESTS_PER_STREAM_MAX).map(|_| calls.begin(now).unwrap()).collect();
        assert_eq!(calls.begin(now), None);
        calls.release(ids[5]);
        assert!(calls.begin(now).is_some());
        assert_eq!(calls.begin(now), None);
    }

    #[test]
    fn only_what_is_due_expires() {
        let mut calls = Calls::default();
        let now = Instant::now();
        let early = calls.begin(now + Duration::from_millis(1)).unwrap();
        let late = calls.begin(now + Duration::from_millis(9)).unwrap();
        let mut wake = Vec::new();
        assert_eq!(calls.expire(now, &mut wake), Some(now + Duration::from_millis(1)));
        assert_eq!(calls.expire(now + Duration::from_millis(5), &mut wake), Some(now + Duration::from_millis(9)));
        assert_eq!(calls.poll(early, Waker::noop()).unwrap().unwrap_err(), CallError::Deadline { sent: true });
        assert!(calls.poll(late, Waker::noop()).is_none());
    }

    #[test]
    fn what_was_not_taken_was_not_sent() {
        let mut calls = Calls::default();
        let now = Instant::now();
        let ids: Vec<_> = (0..3).map(|_| calls.begin(now).unwrap()).collect();
        calls.sent(ids[0], 0);
        calls.sent(ids[1], 100);
        calls.fail("gone", 100, &mut Vec::new());
        let mut error = |id| calls.poll(id, Waker::noop()).unwrap().unwrap_err();
        assert_eq!(error(ids[0]), CallError::Lost { reason: "gone".to_owned() });
        assert_eq!(error(ids[1]), CallError::NotSent { reason: "gone".to_owned() });
        assert_eq!(error(ids[2]), CallError::Lost { reason: "gone".to_owned() }, "its position is not known");
    }
}
