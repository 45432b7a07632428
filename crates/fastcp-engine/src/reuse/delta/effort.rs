//! Whether fine lists are still worth asking for.
//!
//! In a file that is new from end to end they find nothing, and cost both ends the reading of it. So a search
//! has a budget: lists in vain spend it, what is found fills it up. When it is spent a few more are asked for
//! here and there, for files that are new in one part only.

use fastcp_model::ByteRange;

/// Fine lists of so many bytes may be in vain before fewer are asked for.
const VAIN_BYTES_MAX: u64 = 64 << 20;
/// Then it is one in so many, until something is found again.
const VAIN_ASK_EVERY: u32 = 16;
/// A byte that is found makes up for so many in vain: a list costs less than that.
const FOUND_WORTH: u64 = 32;

/// What is left to be spent.
pub(super) struct Effort {
    left_bytes: u64,
    skipped: u32,
}

impl Default for Effort {
    fn default() -> Self {
        Self { left_bytes: VAIN_BYTES_MAX, skipped: 0 }
    }
}

impl Effort {
    pub(super) fn may_ask(&mut self) -> bool {
        if self.left_bytes > 0 {
            return true;
        }
        self.skipped += 1;
        self.skipped.is_multiple_of(VAIN_ASK_EVERY)
    }

    pub(super) fn looked_up(&mut self, range: ByteRange, is_found: bool) {
        self.left_bytes = if is_found {
            VAIN_BYTES_MAX.min(self.left_bytes + range.len() * FOUND_WORTH)
        } else {
            self.left_bytes.saturating_sub(range.len())
        };
    }
}

#[cfg(test)]
mod tests {
    use fastcp_model::ByteRange;

    use super::Effort;

    #[test]
    fn fine_lists_in_vain_become_few_until_something_is_found() {
        let range = ByteRange::new(0, 1 << 20).expect("lawful");
        let mut effort = Effort::default();
        for _ in 0..64 {
            assert!(effort.may_ask());
            effort.looked_up(range, false);
        }
        assert_eq!((0..160).filter(|_| effort.may_ask()).count(), 10);
        effort.looked_up(range, true);
        for _ in 0..32 {
            assert!(effort.may_ask());
            effort.looked_up(range, false);
        }
        assert!(!effort.may_ask());
    }
}
