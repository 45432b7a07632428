//! Two network namespaces and a link between them that can go dead: packets vanish, in both directions, and nobody is
//! told.

use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::say_skipped;

static LINKS: AtomicU32 = AtomicU32::new(0);

/// The address of the far end.
const FAR: &str = "10.77.0.2";
/// The address of the near end.
const NEAR: &str = "10.77.0.1";

/// Two namespaces, removed when dropped.
#[derive(Debug)]
pub(crate) struct Link {
    near: String,
    far: String,
}

impl Link {
    /// `None`, with a message, where namespaces cannot be made.
    pub(crate) fn make() -> Option<Self> {
        let name = format!("fastcp-{}-{}", std::process::id(), LINKS.fetch_add(1, Ordering::Relaxed));
        let link = Self { near: format!("{name}-near"), far: format!("{name}-far") };
        let (near, far) = (&link.near, &link.far);
        let is_made = ip(&format!("netns add {near}"))
            && ip(&format!("netns add {far}"))
            && ip(&format!("link add near netns {near} type veth peer name far netns {far}"))
            && ip(&format!("-n {near} addr add {NEAR}/24 dev near"))
            && ip(&format!("-n {far} addr add {FAR}/24 dev far"))
            && ip(&format!("-n {near} link set near up"))
            && ip(&format!("-n {far} link set far up"));
        if !is_made {
            say_skipped("no network namespaces can be made here");
        }
        is_made.then_some(link)
    }

    /// The address of the far end.
    pub(crate) fn far_address(&self) -> &'static str {
        FAR
    }

    /// What a program is started under to run at the near end.
    pub(crate) fn near_words(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.near].map(str::to_owned).to_vec()
    }

    /// What a program is started under to run at the far end.
    pub(crate) fn far_words(&self) -> Vec<String> {
        ["ip", "netns", "exec", &self.far].map(str::to_owned).to_vec()
    }

    /// From now on every packet vanishes: the far end drops what comes, and what it would send.
    pub(crate) fn cut(&self) {
        assert!(ip(&format!("-n {} route add blackhole {NEAR}/32", self.far)), "cut the link");
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        ip(&format!("netns del {}", self.near));
        ip(&format!("netns del {}", self.far));
    }
}

fn ip(words: &str) -> bool {
    Command::new("ip").args(words.split(' ')).output().is_ok_and(|output| output.status.success())
}
