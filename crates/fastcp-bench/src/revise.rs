//! What changes between two versions of the big file: some of its pages, or what stands in front.
//!
//! The places and the bytes follow from the seed, from streams that no file has, so that nothing
//! new is found elsewhere in the earlier version. The number of changed pages is exact and they are
//! all different: what a tool has to send at least is known.

use std::io::{self, Seek, SeekFrom, Write};

use crate::random::Random;
use crate::workload::SEED;

const PAGE_BYTES: usize = 4096;

/// One page in so many is changed.
const CHANGED_EVERY: u64 = 100;

const INSERTED_BYTES: usize = 1000;

/// Far from the number of any file.
const PAGES_STREAM: u64 = u64::MAX;
const INSERTION_STREAM: u64 = u64::MAX - 1;

/// Writes over a hundredth of the whole pages in the first `bytes`, at least one if there is any.
pub(crate) fn rewrite_pages(out: &mut (impl Write + Seek), bytes: u64) -> io::Result<()> {
    let mut random = Random::of_part(SEED, PAGES_STREAM);
    let pages = bytes / PAGE_BYTES as u64;
    let mut left = (pages / CHANGED_EVERY).max(1);
    let mut page = [0; PAGE_BYTES];
    for index in 0..pages {
        // Each page is as likely as any other, and there is none too many.
        if random.below(pages - index) < left {
            left -= 1;
            random.fill(&mut page);
            out.seek(SeekFrom::Start(index * PAGE_BYTES as u64))?;
            out.write_all(&page)?;
        }
    }
    Ok(())
}

/// What is put in front.
pub(crate) fn insertion() -> [u8; INSERTED_BYTES] {
    let mut bytes = [0; INSERTED_BYTES];
    Random::of_part(SEED, INSERTION_STREAM).fill(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::{PAGE_BYTES, rewrite_pages};

    /// The numbers of the pages that are not as they were.
    fn changed(bytes: usize) -> Vec<usize> {
        let mut out = Cursor::new(vec![0; bytes]);
        rewrite_pages(&mut out, bytes as u64).expect("write to memory");
        let written = out.into_inner();
        assert_eq!(written.len(), bytes);
        let pages = written.chunks(PAGE_BYTES).enumerate();
        pages.filter(|(_, page)| page.iter().any(|&byte| byte != 0)).map(|(index, _)| index).collect()
    }

    #[test]
    fn a_hundredth_of_the_pages_changes() {
        for (pages, count) in [(0, 0), (1, 1), (99, 1), (199, 1), (200, 2), (4096, 40)] {
            assert_eq!(changed(pages * PAGE_BYTES).len(), count, "{pages} pages");
        }
    }

    #[test]
    fn pages_lie_anywhere_and_the_end_that_is_no_page_stays() {
        let pages = changed(4096 * PAGE_BYTES + 1);
        let in_quarter = |quarter: usize| pages.iter().filter(|&&page| page / 1024 == quarter).count();
        assert!((0..4).all(|quarter| in_quarter(quarter) >= 4), "{pages:?}");
        assert!(!pages.contains(&4096));
    }
}
