//! Writes that were proposed and not yet answered, by token.

use pegasus_replication::RequestToken;

use super::session::Request;

/// A slab: tokens are reused, so the replicas hand each back exactly once.
#[derive(Default)]
pub(crate) struct Pending {
    slots: Vec<Option<Request>>,
    free: Vec<usize>,
}

impl Pending {
    /// Keeps a request and names it.
    pub(crate) fn insert(&mut self, request: Request) -> RequestToken {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(request);
        RequestToken(slot as u64)
    }

    /// Gives a request back; `None` if the token is not in use.
    pub(crate) fn take(&mut self, token: RequestToken) -> Option<Request> {
        let slot = usize::try_from(token.0).ok()?;
        let request = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        Some(request)
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }
}
