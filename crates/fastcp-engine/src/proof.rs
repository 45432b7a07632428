//! What the sender says its bytes are: the only thing that lets a file have its name.
//!
//! A [`SenderCrc`] is the CRC-32 that one answer carried, for the range and the file that were asked about. It is
//! made here, of bytes as they come off the connection, and nowhere else: code that has only its own checksum at
//! hand cannot make one. [`WholeCrc`] is that of all of a file, from the answer that brought the whole of it or
//! from all its confirmations together, and `part.rs` gives no name without one. Confirmations are kept as ranges:
//! one that arrives twice is still one.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Instant;

use fastcp_model::{ByteRange, Status};
use fastcp_net::{Connection, NetError};
use fastcp_wire::WireError;
use fastcp_wire::range::{PIECE_HEADER_BYTES, PieceHeader, REPLY_BYTES, Reply, TRAILER_BYTES, Trailer};

use crate::crc_runs::CrcRuns;
use crate::inbox::Inbox;
use crate::job::FileJob;
use crate::want::{Purpose, Want};
use crate::zeros::crc_of_zeros;

/// The header of an answer as it arrived.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heard(PieceHeader);

impl Heard {
    /// Takes a header off the connection.
    pub(crate) fn take(inbox: &mut Inbox, connection: &Connection) -> Result<Self, NetError> {
        let bytes = inbox.take::<PIECE_HEADER_BYTES>(connection)?;
        Ok(Self(PieceHeader::decode(&bytes)?))
    }

    /// The CRC-32 in the answer to a request for a confirmation; `None` where it is not such an answer.
    pub(crate) fn confirms<'w>(&self, want: &'w Want) -> Option<SenderCrc<'w>> {
        let is_confirmation = want.purpose != Purpose::Fetch && self.reply.status == Status::Ok;
        is_confirmation.then_some(SenderCrc { want, crc: self.reply.crc32 })
    }
}

impl Deref for Heard {
    type Target = PieceHeader;

    fn deref(&self) -> &PieceHeader {
        &self.0
    }
}

/// The reply of a server that speaks plain FTQ1.
#[derive(Debug, Clone, Copy)]
pub(crate) struct HeardPlain(Reply);

impl HeardPlain {
    /// Takes the reply off the connection, waiting for it no longer than until `deadline`.
    pub(crate) fn take_by(connection: &Connection, deadline: Instant) -> Result<Self, NetError> {
        let mut bytes = [0; REPLY_BYTES];
        connection.read_first_by(&mut bytes, deadline)?;
        Ok(Self(Reply::decode(&bytes)?))
    }

    /// The CRC-32 of the whole file.
    pub(crate) fn whole(&self) -> WholeCrc {
        WholeCrc(self.0.crc32)
    }

    /// Whether that may stand for none: some servers give 0.
    pub(crate) fn not_given(&self) -> Option<NotGiven> {
        (self.0.crc32 == 0).then_some(NotGiven(()))
    }
}

impl Deref for HeardPlain {
    type Target = Reply;

    fn deref(&self) -> &Reply {
        &self.0
    }
}

/// A plain server's word that it gives no CRC-32: then the length is all that there is to check.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NotGiven(());

/// The sender's CRC-32 of what a want is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderCrc<'w> {
    want: &'w Want,
    crc: u32,
}

impl<'w> SenderCrc<'w> {
    /// Takes the trailer of the answer to `want` off the connection, whose body has been taken: the CRC-32, and how
    /// it went. A trailer that cannot be read was damaged.
    pub(crate) fn take_trailer(
        want: &'w Want,
        inbox: &mut Inbox,
        connection: &Connection,
    ) -> Result<Result<(Self, Status), WireError>, NetError> {
        let bytes = inbox.take::<TRAILER_BYTES>(connection)?;
        Ok(Trailer::decode(&bytes).map(|Trailer { crc32, status }| (Self { want, crc: crc32 }, status)))
    }

    /// The same, of the range that is a hole: the trailer of such an answer repeats the CRC-32 of its body, and what
    /// the body says is that the range is zeros. As it is where the body was damaged.
    pub(crate) fn of_hole(self, body_crc: u32) -> Self {
        let crc = if self.crc == body_crc { crc_of_zeros(self.range().len()) } else { self.crc };
        Self { crc, ..self }
    }

    pub(crate) fn crc(&self) -> u32 {
        self.crc
    }

    pub(crate) fn job(&self) -> &'w Arc<FileJob> {
        &self.want.job
    }

    pub(crate) fn range(&self) -> ByteRange {
        self.want.range
    }

    /// The proof of the file, where its range is all of it.
    pub(crate) fn of_whole(self) -> Option<Proof<'w>> {
        let is_whole = self.range() == whole_range(self.job());
        is_whole.then_some(Proof { job: self.job(), whole: WholeCrc(self.crc) })
    }
}

/// Which ranges of one file the sender has confirmed.
#[derive(Debug, Default)]
pub(crate) struct Confirmed(CrcRuns);

impl Confirmed {
    /// Adds a confirmation of the file; answers the proof of all of it once nothing is missing.
    pub(crate) fn add<'w>(&mut self, sender: &SenderCrc<'w>) -> Option<Proof<'w>> {
        self.0.insert(sender.range(), sender.crc);
        let whole = self.0.whole(sender.job().grid.file_bytes())?;
        Some(Proof { job: sender.job(), whole: WholeCrc(whole) })
    }
}

/// The CRC-32 of a whole file at the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WholeCrc(u32);

impl WholeCrc {
    pub(crate) fn crc(self) -> u32 {
        self.0
    }

    /// For tests of what follows from it.
    #[cfg(test)]
    pub(crate) fn claimed(crc: u32) -> Self {
        Self(crc)
    }
}

/// What the sender says of all of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proof<'w> {
    pub(crate) job: &'w Arc<FileJob>,
    pub(crate) whole: WholeCrc,
}

fn whole_range(job: &FileJob) -> ByteRange {
    ByteRange::new(0, job.grid.file_bytes()).expect("a grid's file fits")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastcp_model::{ChunkGrid, Metadata, Name, RelPath, Timestamp};

    use super::{Confirmed, SenderCrc};
    use crate::crc_runs::{CONFIRM_BYTES, combine};
    use crate::dirs::{Age, DirState};
    use crate::job::{Confirmation, FileJob};
    use crate::naming::{PartPlace, Shelter};
    use crate::part::PartFile;
    use crate::want::Want;

    fn job(file_bytes: u64) -> Arc<FileJob> {
        let metadata = Metadata { mode: 0o644, uid: 0, gid: 0, mtime: Timestamp::default() };
        let dir = DirState::new(RelPath::root(), Age::New, None, None);
        let grid = ChunkGrid::new(file_bytes, 1024).expect("lawful");
        Arc::new(FileJob::new(dir, Name::new(b"file").expect("lawful"), metadata, grid, true, false))
    }

    #[test]
    fn a_segment_that_is_confirmed_twice_counts_once() {
        let job = job(2 * CONFIRM_BYTES);
        let wants = Want::confirmations(&job);
        let [first, second] = &wants[..] else { panic!("two segments") };
        let mut confirmed = Confirmed::default();
        let one = SenderCrc { want: first, crc: 1 };
        assert!(confirmed.add(&one).is_none());
        assert!(confirmed.add(&one).is_none());
        let proof = confirmed.add(&SenderCrc { want: second, crc: 2 }).expect("both are there");
        assert_eq!(proof.whole.crc(), combine(1, 2, CONFIRM_BYTES));
    }

    #[test]
    fn only_an_answer_about_all_of_a_file_proves_it() {
        let job = job(10);
        let mut want = Want::confirmations(&job).remove(0);
        assert!(SenderCrc { want: &want, crc: 1 }.of_whole().is_some());
        want.range = fastcp_model::ByteRange::new(0, 9).expect("lawful");
        assert!(SenderCrc { want: &want, crc: 1 }.of_whole().is_none());
    }

    #[test]
    fn a_file_is_handed_out_once_and_to_nobody_while_it_is_written() {
        for writers in [0, 1] {
            let tree = tempfile::tempdir().expect("temporary directory");
            let dir = fastcp_sys::Root::open(tree.path()).expect("open").dir(&RelPath::root()).expect("root");
            let job = job(10);
            let name = Name::new(b"part").expect("lawful");
            let place = PartPlace { dir: Arc::new(dir), name, shelter: Shelter::StateDir };
            let made = job.part(|| PartFile::named(place)).expect("made");
            let writer = (writers > 0).then_some(made);
            let want = Want::confirmations(&job).remove(0);
            job.stands(want.range, 1);
            let sender = SenderCrc { want: &want, crc: 1 };
            match FileJob::confirmed(sender) {
                Confirmation::Whole { written: 1, .. } => assert_eq!(writers, 0),
                Confirmation::Busy => assert_eq!(writers, 1),
                other => panic!("{other:?}"),
            }
            drop(writer);
            assert!(matches!(FileJob::confirmed(sender), Confirmation::Settled));
        }
    }
}
