//! What the sender says of one file: the CRC-32 of a range, bound to the want that asked about it.
//!
//! A [`Proof`] names the file whose bytes the sender vouches for. It can be had only from answers to wants about that
//! file, so that no other file's checksum can give it its name.

use std::sync::Arc;

use fastcp_model::ByteRange;

use crate::schedule::job::FileJob;
use crate::schedule::want::Want;
use crate::target::proof::{Confirmed, RangeCrc, WholeCrc};

/// The sender's CRC-32 of what a want is about.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SenderCrc<'w> {
    want: &'w Want,
    of_range: RangeCrc,
}

impl<'w> SenderCrc<'w> {
    /// The answer to `want`.
    ///
    /// # Panics
    /// It is about another range.
    pub(crate) fn new(want: &'w Want, of_range: RangeCrc) -> Self {
        assert_eq!(want.range, of_range.range(), "an answer about another range");
        Self { want, of_range }
    }

    pub(crate) fn crc(&self) -> u32 {
        self.of_range.crc()
    }

    pub(crate) fn job(&self) -> &'w Arc<FileJob> {
        &self.want.job
    }

    pub(crate) fn range(&self) -> ByteRange {
        self.want.range
    }

    /// The proof of the file, where its range is all of it.
    pub(crate) fn of_whole(self) -> Option<Proof<'w>> {
        let job = self.job();
        self.of_range.of_whole(job.grid.file_bytes()).map(|whole| Proof { job, whole })
    }

    /// Adds it, a confirmation, to those of its file; answers the proof of all of it once nothing is missing.
    pub(crate) fn add_to(&self, confirmed: &mut Confirmed) -> Option<Proof<'w>> {
        let job = self.job();
        confirmed.add(&self.of_range, job.grid.file_bytes()).map(|whole| Proof { job, whole })
    }
}

/// What the sender says of all of one file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Proof<'w> {
    pub(crate) job: &'w Arc<FileJob>,
    pub(crate) whole: WholeCrc,
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fastcp_model::{Name, RelPath};

    use super::SenderCrc;
    use crate::content::crc_runs::{CONFIRM_BYTES, combine};
    use crate::schedule::job::tests::job;
    use crate::schedule::job::{Confirmation, FileJob};
    use crate::schedule::want::Want;
    use crate::target::naming::{PartPlace, Shelter};
    use crate::target::part::PartFile;
    use crate::target::proof::{Confirmed, RangeCrc};

    fn answer(want: &Want, crc: u32) -> SenderCrc<'_> {
        SenderCrc::new(want, RangeCrc::claimed(want.range, crc))
    }

    #[test]
    fn a_segment_that_is_confirmed_twice_counts_once() {
        let job = job(2 * CONFIRM_BYTES);
        let wants = Want::confirmations(&job);
        let [first, second] = &wants[..] else { panic!("two segments") };
        let mut confirmed = Confirmed::default();
        let one = answer(first, 1);
        assert!(one.add_to(&mut confirmed).is_none());
        assert!(one.add_to(&mut confirmed).is_none());
        let proof = answer(second, 2).add_to(&mut confirmed).expect("both are there");
        assert_eq!(proof.whole.crc(), combine(1, 2, CONFIRM_BYTES));
    }

    #[test]
    fn only_an_answer_about_all_of_a_file_proves_it() {
        let job = job(10);
        let mut want = Want::confirmations(&job).remove(0);
        assert!(answer(&want, 1).of_whole().is_some());
        want.range = fastcp_model::ByteRange::new(0, 9).expect("lawful");
        assert!(answer(&want, 1).of_whole().is_none());
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
            let sender = answer(&want, 1);
            match FileJob::confirmed(sender, 0) {
                Confirmation::Whole { written: 1, .. } => assert_eq!(writers, 0),
                Confirmation::Busy => assert_eq!(writers, 1),
                other => panic!("{other:?}"),
            }
            drop(writer);
            assert!(matches!(FileJob::confirmed(sender, 0), Confirmation::Settled));
        }
    }
}
