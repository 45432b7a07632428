//! The sender on a control connection: requests for offers in, batches of listings out.
//!
//! A thread of its own scans ahead by a few batches; this one encodes and sends. While the scan is
//! silent a batch goes out now and then, though it be empty, so that the receiver can tell slow from
//! dead. Apart from that, where one batch ends and the next begins follows from the tree alone: so an
//! unchanged tree gives the same batches, and those that the receiver still has are only named.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use fastcp_model::{Capabilities, Entry, EntryKind, Listing, ListingEnd, Metadata};
use fastcp_net::{Agreed, Connection, NetError};
use fastcp_wire::frame::FrameType;
use fastcp_wire::hello::{Attach, Failure};
use fastcp_wire::known::RECEIVER_FRAME_BYTES_MAX;
use fastcp_wire::known::{BatchId, decode_known};
use fastcp_wire::offer::{
    BatchCodec, ENTRY_FIXED_BYTES_MAX, OfferBatch, OfferEnd, OfferRequest, OwnerClass, OwnerName,
};
use nix::unistd::{Gid, Group, Uid, User};

use crate::sender::scan::{Batch, Scan};
use crate::sender::source::Source;
use crate::threads::spawn;

/// A batch leaves when its listings take up about this much, uncompressed.
const BATCH_BYTES: usize = 256 << 10;
/// What one step of the scan brought is sent at once if it takes up this much; the first step always is.
const STEP_BYTES: usize = 16 << 10;
/// Batches that the scan may be ahead.
const SCAN_AHEAD: usize = 2;
/// An empty batch is sent after this much silence: receivers give up a sender that says nothing for three times as long.
pub(crate) const OFFER_HEARTBEAT: Duration = Duration::from_secs(1);
/// After so many in a row, what has gathered is sent as well.
const HEARTBEATS_ALONE: u32 = 10;

/// How a control connection ends in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OffersEnd {
    /// The receiver closed it.
    Closed,
    /// The receiver makes it a data connection of a session.
    Attach(Attach),
}

/// Answers requests for offers until the receiver closes the session, or uses the connection for something else.
pub(crate) fn serve_offers(connection: &Connection, source: &Source, agreed: Agreed) -> Result<OffersEnd, NetError> {
    // The receiver may rightly stop reading for hours while its connections are busy; TCP's own
    // probes find out whether it is still there. One that reads nothing and has no data
    // connection either is hung up where others need the room (`Sessions`).
    connection.set_timeouts(None, None)?;
    let mut known = HashSet::new();
    loop {
        match connection.read_frame_within(RECEIVER_FRAME_BYTES_MAX) {
            Ok((FrameType::OfferKnown, payload)) => {
                // A receiver may have asked before it knew what was agreed.
                let named = decode_known(&payload)?;
                if agreed.capabilities.contains(Capabilities::TREE_CACHE) {
                    known = named.into_iter().collect();
                }
            }
            Ok((FrameType::OfferRequest, payload)) => {
                let request = OfferRequest::decode(&payload)?;
                serve_offer(connection, source, agreed, &request, &known)?;
            }
            Ok((FrameType::Attach, payload)) => return Ok(OffersEnd::Attach(Attach::decode(&payload)?)),
            Ok((other, _)) => return Err(NetError::UnexpectedFrame(other)),
            Err(NetError::Closed) => return Ok(OffersEnd::Closed),
            Err(error) => return Err(error),
        }
    }
}

fn serve_offer(
    connection: &Connection,
    source: &Source,
    agreed: Agreed,
    request: &OfferRequest,
    known: &HashSet<BatchId>,
) -> Result<(), NetError> {
    let mut scan = match Scan::new(source, request) {
        Ok(scan) => scan,
        Err(status) => return connection.write_frame(FrameType::Failure, &Failure::from(status).encode()),
    };
    let codec = match agreed.capabilities.contains(Capabilities::COMPRESSED_TREE) {
        true => BatchCodec::Zstd,
        false => BatchCodec::Raw,
    };
    let mut offers = OfferSender {
        connection,
        codec,
        known,
        batch: OfferBatch::default(),
        batch_bytes: 0,
        named: HashSet::new(),
        is_first: true,
        end: OfferEnd { entries: 0, failures: 0 },
        beats: 0,
    };
    let (scanned, listings) = sync_channel(SCAN_AHEAD);
    let begun = std::thread::scope(|threads| {
        let scan = &mut scan;
        let scanning = spawn(threads, "scan", move || run_scan(scan, &scanned));
        scanning.map(|_| {
            let sent = offers.send_all(&listings);
            // The scan waits for somebody to take what it found, and the scope for the scan.
            drop(listings);
            sent
        })
    });
    begun.unwrap_or_else(|error| {
        tracing::debug!(%error, "cannot start a thread to scan with");
        offers.scan_and_send_all(&mut scan)
    })
}

/// Ends early when nobody wants the listings any more.
fn run_scan<'a>(scan: &mut Scan<'a>, scanned: &SyncSender<Batch<'a>>) {
    for batch in scan {
        if scanned.send(batch).is_err() {
            return;
        }
    }
}

struct OfferSender<'a> {
    connection: &'a Connection,
    codec: BatchCodec,
    /// What the receiver has.
    known: &'a HashSet<BatchId>,
    batch: OfferBatch,
    batch_bytes: usize,
    named: HashSet<(OwnerClass, u32)>,
    /// Whether no step of the scan was added yet.
    is_first: bool,
    end: OfferEnd,
    /// Heartbeats since the last step of the scan.
    beats: u32,
}

impl OfferSender<'_> {
    fn send_all(&mut self, scanned: &Receiver<Batch<'_>>) -> Result<(), NetError> {
        loop {
            match scanned.recv_timeout(OFFER_HEARTBEAT) {
                Ok(batch) => self.add_step(batch)?,
                Err(RecvTimeoutError::Timeout) => self.beat()?,
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        self.finish()
    }

    /// The same on one thread: nothing is scanned while something is sent.
    fn scan_and_send_all(&mut self, scan: &mut Scan<'_>) -> Result<(), NetError> {
        let mut last = Instant::now();
        for batch in scan {
            if last.elapsed() >= OFFER_HEARTBEAT {
                self.beat()?;
            }
            self.add_step(batch)?;
            last = Instant::now();
        }
        self.finish()
    }

    /// Adds what one step of the scan brought.
    fn add_step(&mut self, mut batch: Batch<'_>) -> Result<(), NetError> {
        self.beats = 0;
        for listing in batch.listings.drain(..) {
            self.add(Arc::unwrap_or_clone(listing))?;
        }
        if std::mem::take(&mut self.is_first) || self.batch_bytes >= STEP_BYTES { self.flush() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), NetError> {
        self.flush()?;
        self.connection.write_frame(FrameType::OfferEnd, &self.end.encode())
    }

    /// Says that this end lives. Where one batch ends and the next begins stays as it is, unless the silence is long.
    fn beat(&mut self) -> Result<(), NetError> {
        self.beats += 1;
        if self.beats.is_multiple_of(HEARTBEATS_ALONE) {
            return self.send_batch();
        }
        self.connection.write_frame(FrameType::OfferBatch, &OfferBatch::default().encode(self.codec)?)
    }

    /// Adds one directory, in as many parts as batches need.
    fn add(&mut self, mut listing: Listing) -> Result<(), NetError> {
        self.end.entries += listing.entries.len() as u64 + u64::from(listing.root.is_some());
        self.end.failures += listing.failures.len() as u64;
        if let ListingEnd::Broken(_) = listing.end {
            self.end.failures += 1;
        }
        if let Some(metadata) = listing.root {
            self.name_owners(metadata);
        }
        let end = listing.end;
        let entries = std::mem::take(&mut listing.entries);
        let mut part = Listing { end: ListingEnd::More, ..listing.clone() };
        self.batch_bytes += listing.dir.as_bytes().len() + 64 + listing.failures.len() * 64;
        for entry in entries {
            self.name_owners(entry.metadata);
            self.batch_bytes += entry_bytes(&entry);
            part.entries.push(entry);
            if self.batch_bytes >= BATCH_BYTES {
                let next = Listing {
                    dir: part.dir.clone(),
                    root: None,
                    entries: Vec::new(),
                    failures: Vec::new(),
                    end: ListingEnd::More,
                };
                self.batch.listings.push(std::mem::replace(&mut part, next));
                self.send_batch()?;
            }
        }
        part.end = end;
        self.batch.listings.push(part);
        if self.batch_bytes >= BATCH_BYTES { self.send_batch() } else { Ok(()) }
    }

    fn name_owners(&mut self, metadata: Metadata) {
        self.name_owner(OwnerClass::User, metadata.uid);
        self.name_owner(OwnerClass::Group, metadata.gid);
    }

    fn name_owner(&mut self, class: OwnerClass, id: u32) {
        if !self.named.insert((class, id)) {
            return;
        }
        let name = match class {
            OwnerClass::User => User::from_uid(Uid::from_raw(id)).ok().flatten().map(|user| user.name),
            OwnerClass::Group => Group::from_gid(Gid::from_raw(id)).ok().flatten().map(|group| group.name),
        };
        let lawful = |name: &String| (1..=fastcp_wire::limits::OWNER_NAME_BYTES_MAX).contains(&name.len());
        if let Some(name) = name.filter(lawful) {
            self.batch.owners.push(OwnerName { class, id, name: name.into_bytes().into() });
        }
    }

    fn flush(&mut self) -> Result<(), NetError> {
        if self.batch.listings.is_empty() { Ok(()) } else { self.send_batch() }
    }

    fn send_batch(&mut self) -> Result<(), NetError> {
        let payload = self.batch.encode(self.codec)?;
        self.batch = OfferBatch::default();
        self.batch_bytes = 0;
        let id = if self.known.is_empty() { None } else { self.known.get(&BatchId::of(&payload)) };
        match id {
            Some(id) => self.connection.write_frame(FrameType::OfferSame, &id.encode()),
            None => self.connection.write_frame(FrameType::OfferBatch, &payload),
        }
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    let target = match &entry.kind {
        EntryKind::Symlink { target } => target.len(),
        _ => 0,
    };
    ENTRY_FIXED_BYTES_MAX + entry.name.as_bytes().len() + target
}

/// Tells a peer why it is turned away; it may be gone already, and then there is nobody to tell.
pub(crate) fn send_failure(connection: &Connection, failure: impl Into<Failure>) {
    let _ = connection.write_frame(FrameType::Failure, &failure.into().encode());
}
