//! Requests on their way over one data connection, and whose turn it is when an answer comes.
//!
//! Several are on their way while an answer is read. The sender answers in the order in which it was asked, so an
//! answer is always that to the first request that is owed; what it is about is the item that was put with it.
//!
//! Whoever owes must not fill the sockets' buffers with requests: the sender reads none while it writes, and both
//! ends would wait for each other.

use std::collections::VecDeque;

use fastcp_model::Status;
use fastcp_net::{Connection, Inbox, NetError};
use fastcp_wire::WireError;
use fastcp_wire::bundle::id_after;
use fastcp_wire::progress::{Awaited, hear};
use fastcp_wire::reply::BodyKind;
use fastcp_wire::request::ID_UNREADABLE;

use crate::target::proof::Heard;

/// Bytes of requests on their way at most: fewer than the sockets' buffers hold.
pub(crate) const REQUEST_BYTES_MAX: usize = 32 << 10;

/// What was asked for on one connection and not answered yet.
#[derive(Debug)]
pub(crate) struct Pipeline<T> {
    owed: VecDeque<Owed<T>>,
    request_bytes: usize,
    next_id: u32,
    /// Requests that have not left yet.
    requests: Vec<u8>,
}

#[derive(Debug)]
struct Owed<T> {
    id: u32,
    request_bytes: usize,
    item: T,
}

impl<T> Default for Pipeline<T> {
    fn default() -> Self {
        Self { owed: VecDeque::new(), request_bytes: 0, next_id: 0, requests: Vec::new() }
    }
}

impl<T> Pipeline<T> {
    /// Whether one more request may go on its way: the first may in any case.
    pub(crate) fn has_room(&self) -> bool {
        self.owed.is_empty() || self.request_bytes < REQUEST_BYTES_MAX
    }

    /// Whether a good many may.
    pub(crate) fn is_half_empty(&self) -> bool {
        self.request_bytes <= REQUEST_BYTES_MAX / 2
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    pub(crate) fn len(&self) -> usize {
        self.owed.len()
    }

    /// The number of the request that is put next.
    pub(crate) fn next_id(&self) -> u32 {
        self.next_id
    }

    /// Adds a request, which `encode` writes; answers how long it is. It leaves with the next [`Pipeline::send`].
    pub(crate) fn put(&mut self, item: T, encode: impl FnOnce(&mut Vec<u8>)) -> usize {
        self.put_together([item], encode)
    }

    /// Adds one request for several items, each of which is answered by itself, with numbers one after another.
    pub(crate) fn put_together(
        &mut self,
        items: impl IntoIterator<Item = T>,
        encode: impl FnOnce(&mut Vec<u8>),
    ) -> usize {
        let start = self.requests.len();
        encode(&mut self.requests);
        let request_bytes = self.requests.len() - start;
        self.request_bytes += request_bytes;
        // The sender has read the request when the first answer comes.
        let mut weighs = request_bytes;
        for item in items {
            self.owed.push_back(Owed { id: self.next_id, request_bytes: std::mem::take(&mut weighs), item });
            self.next_id = id_after(self.next_id);
        }
        request_bytes
    }

    /// Sends what was put.
    pub(crate) fn send(&mut self, connection: &Connection) -> Result<(), NetError> {
        if !self.requests.is_empty() {
            connection.write_all(&self.requests)?;
            self.requests.clear();
        }
        Ok(())
    }

    /// What the next answer is about.
    pub(crate) fn first(&self) -> Option<&T> {
        self.owed.front().map(|owed| &owed.item)
    }

    pub(crate) fn first_mut(&mut self) -> Option<&mut T> {
        self.owed.front_mut().map(|owed| &mut owed.item)
    }

    /// What was asked for last.
    pub(crate) fn last(&self) -> Option<&T> {
        self.owed.back().map(|owed| &owed.item)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.owed.iter_mut().map(|owed| &mut owed.item)
    }

    /// The first is answered.
    pub(crate) fn pop(&mut self) -> Option<T> {
        let owed = self.owed.pop_front()?;
        self.request_bytes -= owed.request_bytes;
        Some(owed.item)
    }

    /// Takes the header of the answer to the first. Before it, a sender that has to read `read_bytes` for the answer
    /// may say how far it is; with `None` it has nothing to say.
    ///
    /// # Errors
    /// The connection broke, or is as good as broken: the peer breaks the protocol, has no room, or could not read a
    /// request. All that is owed is then to be asked for again.
    pub(crate) fn header(
        &self,
        inbox: &mut Inbox,
        connection: &Connection,
        read_bytes: Option<u64>,
    ) -> Result<Heard, NetError> {
        let first = self.owed.front().map(|owed| owed.id);
        let mut awaited = first.zip(read_bytes).map(|(id, read_bytes)| Awaited::new(id, read_bytes));
        loop {
            let header = Heard::take(inbox, connection)?;
            if header.reply.status == Status::Busy {
                // Nothing is said of the file: it is asked for again, a little later.
                return Err(NetError::Refused(Status::Busy));
            }
            if header.id == ID_UNREADABLE && header.reply.status != Status::Ok {
                return Err(NetError::Closed);
            }
            if header.kind == BodyKind::Progress {
                hear(awaited.as_mut(), &header)?;
                continue;
            }
            return match first {
                Some(id) if id == header.id => Ok(header),
                _ => Err(WireError::Value { field: "id", value: header.id.into() }.into()),
            };
        }
    }

    /// All that is owed, in the order in which it was asked for.
    pub(crate) fn into_owed(self) -> impl DoubleEndedIterator<Item = T> {
        self.owed.into_iter().map(|owed| owed.item)
    }
}

#[cfg(test)]
mod tests {
    use super::{Pipeline, REQUEST_BYTES_MAX};

    #[test]
    fn a_request_for_several_weighs_until_the_first_of_its_answers() {
        let mut pipeline = Pipeline::default();
        assert_eq!(pipeline.put_together(["a", "b", "c"], |out| out.extend([7; 100])), 100);
        assert_eq!(pipeline.put("d", |out| out.extend([8; REQUEST_BYTES_MAX - 1])), REQUEST_BYTES_MAX - 1);
        assert!(!pipeline.has_room() && !pipeline.is_half_empty());
        assert_eq!((pipeline.len(), pipeline.next_id()), (4, 4));
        assert_eq!(pipeline.pop(), Some("a"));
        assert!(pipeline.has_room(), "the sender has read the request when its first answer comes");
        assert_eq!((pipeline.first(), pipeline.last()), (Some(&"b"), Some(&"d")));
        assert_eq!(pipeline.into_owed().collect::<Vec<_>>(), ["b", "c", "d"]);
    }

    #[test]
    fn the_first_request_has_room_however_long_it_is() {
        let mut pipeline = Pipeline::default();
        assert!(pipeline.has_room() && pipeline.is_empty());
        pipeline.put((), |out| out.extend([0; 2 * REQUEST_BYTES_MAX]));
        assert!(!pipeline.has_room());
        pipeline.pop();
        assert!(pipeline.has_room() && pipeline.is_half_empty());
    }
}
