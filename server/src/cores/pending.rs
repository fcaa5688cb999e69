//! Writes that were proposed and not yet answered, by token.

use pegasus_replication::RequestToken;

use super::session::Request;

/// A slab: tokens are reused, so the replicas hand each back exactly once.
#[derive(Default)]
pub struct Pending {
    slots: Vec<Option<Request>>,
    free: Vec<usize>,
}

impl Pending {
    /// Keeps a request and names it.
    pub fn insert(&mut self, request: Request) -> RequestToken {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(request);
        RequestToken(slot as u64)
    }

    /// Gives a request back; `None` if the token is not in use.
    pub fn take(&mut self, token: RequestToken) -> Option<Request> {
        let slot = usize::try_from(token.0).ok()?;
        let request = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(request)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Gives back all that wait.
    pub fn drain(&mut self) -> Vec<Request> {
        self.free.clear();
        self.slots.drain(..).flatten().collect()
    }
}
